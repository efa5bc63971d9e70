// From pictures to pixels: frames and masks are data URIs; a mask's grey value is the object id.
const OBJECT_COLOURS = [
  [230, 159, 0], [86, 180, 233], [0, 158, 115], [240, 228, 66], [213, 94, 0], [204, 121, 167], [0, 114, 178],
];
const MISSED = [0, 114, 178];
const SPURIOUS = [213, 94, 0];
const CONFUSED = [240, 228, 66];

async function pixelsOf(uri) {
  const image = new Image();
  image.src = uri;
  await image.decode();
  const canvas = document.createElement("canvas");
  canvas.width = image.naturalWidth;
  canvas.height = image.naturalHeight;
  const context = canvas.getContext("2d", { willReadFrequently: true });
  context.drawImage(image, 0, 0);
  return context.getImageData(0, 0, canvas.width, canvas.height);
}

function blend(data, at, colour, weight) {
  for (let c = 0; c < 3; c += 1) data[at + c] = data[at + c] * (1 - weight) + colour[c] * weight;
}

function colourOfObject(id) {
  return OBJECT_COLOURS[(id - 1) % OBJECT_COLOURS.length];
}

// Draw object colours over a frame, with a solid line at the border of an object.
function paintMask(frame, mask) {
  const { width, height, data } = frame;
  const id = (x, y) => mask.data[4 * (y * width + x)];
  for (let y = 0; y < height; y += 1) {
    for (let x = 0; x < width; x += 1) {
      const here = id(x, y);
      if (here === 0 || here === 255) continue;
      const edge = (x > 0 && id(x - 1, y) !== here) || (x + 1 < width && id(x + 1, y) !== here)
        || (y > 0 && id(x, y - 1) !== here) || (y + 1 < height && id(x, y + 1) !== here);
      blend(data, 4 * (y * width + x), colourOfObject(here), edge ? 1 : 0.45);
    }
  }
}

// Show where a mask differs from the truth over a greyed frame; missed pixels are also striped, for readers who do not see colours.
function paintDifferences(frame, mask, truth, asForeground) {
  const { width, data } = frame;
  for (let at = 0; at < data.length; at += 4) {
    const grey = 0.55 * (0.3 * data[at] + 0.59 * data[at + 1] + 0.11 * data[at + 2]) + 70;
    data[at] = data[at + 1] = data[at + 2] = grey;
    const [said, is] = [mask.data[at], truth.data[at]];
    if (said === is || is === 255) continue;
    const pixel = at / 4;
    const stripe = ((pixel % width) + Math.floor(pixel / width)) % 5 < 3;
    if (said === 0) blend(data, at, stripe ? MISSED : [255, 255, 255], stripe ? 0.9 : 0.5);
    else if (is === 0) blend(data, at, SPURIOUS, 0.85);
    else if (!asForeground) blend(data, at, CONFUSED, 0.85);
  }
}
