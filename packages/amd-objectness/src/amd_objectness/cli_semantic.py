"""The ``finetune-semantic`` command."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro

from amd_objectness.presets import SemanticSettings
from vos_shared.training.arguments import RunArguments

if TYPE_CHECKING:
    from amd_objectness.finetune_semantic import FCN, SemanticResult
    from vos_shared.datasets import VideoSequence


@dataclass(frozen=True, kw_only=True)
class FinetuneSemantic(RunArguments):
    """Train a fully convolutional network on PASCAL VOC 2012 from the backbone and report mIoU.

    The recipe is a stand-in: the paper reports such figures, but its release holds neither code nor settings for them.
    """

    root: Path
    """VOC 2012: folder with JPEGImages, SegmentationClass and ImageSets."""
    split: str = "train"
    """Images to train on: name of a list in ImageSets/Segmentation, or path of one."""
    validate: str = "val"
    """Images to report mIoU on: name of a list in ImageSets/Segmentation, or path of one."""
    weights: str | None = None
    """Weights whose backbone the run starts from, a file or a name; by default those that come with the package.
    untrained starts from random values."""
    settings: Annotated[SemanticSettings, tyro.conf.arg(name="")] = field(default_factory=SemanticSettings)

    def run(self) -> int:
        """Train and report."""
        from amd_objectness.checkpoints import load_weights
        from amd_objectness.finetune_semantic import finetune, network_for
        from vos_shared.datasets import voc2012
        from vos_shared.runtime.seeding import seed_everything

        self.check()
        images, judged = voc2012(self.root, self.split), voc2012(self.root, self.validate)
        loaded = load_weights(self.weights)
        fabric = self.launch()
        seed_everything(self.settings.seed)  # The head's start values are random.
        model = network_for(loaded)
        data = f"backbone of {loaded.description}, fine-tuned on VOC 2012 {Path(self.split).stem}"
        last = finetune(model, images, self.settings, self.run_options(data), fabric)
        if last is not None and fabric.is_global_zero:
            self._report(model, judged)
        return self.ended(last, fabric)

    def _report(self, model: FCN, judged: list[VideoSequence]) -> None:
        """Print the table of IoU and write miou.json beside the weights."""
        from amd_objectness.finetune_semantic import SemanticResult, confusion
        from vos_shared.atomic import write_json

        device = next(model.parameters()).device
        result = SemanticResult.of(confusion(model, judged, device))
        rows = {name: None if math.isnan(value) else value for name, value in result.classes.items()}
        write_json(self.output / "miou.json", {"mIoU": result.miou, "images": len(judged), "classes": rows})
        print(_table(result, len(judged)))


def _table(result: SemanticResult, images: int) -> str:
    from vos_shared.tables import text_table

    rows = [(name, "-" if math.isnan(value) else f"{100 * value:.1f}") for name, value in result.classes.items()]
    return text_table((f"{images} images", "IoU"), [*rows, ("mean", f"{100 * result.miou:.1f}")])
