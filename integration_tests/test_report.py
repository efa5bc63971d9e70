"""The report: one file, safe with any names, and working in a real browser."""

from __future__ import annotations

import base64
import io
import json
import re
import shutil
from collections.abc import Iterator, Mapping, Sequence
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from selenium import webdriver
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.remote.webelement import WebElement
from selenium.webdriver.support.ui import Select, WebDriverWait

from comparison.records import FOREGROUND, OBJECTS, Given, Measure, Model, Row, Scored, SequenceRun
from comparison.report import Contents, render_report
from comparison.report import pictures as report_pictures
from comparison.report.pictures import take_pictures
from comparison.statistics import bootstrap_interval
from vos_shared.datasets import VideoSequence, davis2017
from vos_shared.masks import write_mask
from vos_shared.video import Video, VideoWriter

HOSTILE = "</script><img src=x onerror=alert(1)>\"'&"
NAMES = ("J&F-Mean", "J-Mean", "J-Recall", "J-Decay", "F-Mean", "F-Recall", "F-Decay")
CHROMIUM, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")

scores = st.floats(0, 1)


@given(st.dictionaries(st.text(max_size=3), st.lists(scores, min_size=1, max_size=4), min_size=2, max_size=6))
def test_interval_lies_among_the_sequences_means(values: dict[str, list[float]]) -> None:
    interval = bootstrap_interval(values, seed=0, resamples=200)
    assert interval is not None
    means = [float(np.mean(group)) for group in values.values()]
    assert min(means) - 1e-12 <= interval[0] <= interval[1] <= max(means) + 1e-12
    assert interval == bootstrap_interval(values, seed=0, resamples=200)


def test_interval_of_a_known_spread() -> None:
    # The mean of n values drawn from two equally frequent ones has standard deviation 1 / (2 sqrt n).
    values = {str(i): [float(i % 2)] for i in range(100)}
    interval = bootstrap_interval(values, seed=0)
    assert interval is not None
    assert interval == pytest.approx((0.5 - 1.96 / 20, 0.5 + 1.96 / 20), abs=0.006)


def test_no_interval_without_several_sequences() -> None:
    assert bootstrap_interval({"one": [0.2, 0.9], "undefined": [float("nan")]}, seed=0) is None


def scored(sequences: Sequence[str], level: float) -> Scored:
    values = {name: Measure(dict.fromkeys(NAMES, level + i / 10)) for i, name in enumerate(sequences)}
    overall = Measure(dict.fromkeys(NAMES, level), {"J&F-Mean": (level - 0.1, level + 0.1)})
    over_time = {name: [(t, level) for t in range(1, 5)] for name in sequences}
    return Scored(overall, values, {name: name for name in sequences}, over_time)


def row(label: str, masks: Path, level: float, **changes: object) -> Row:
    names = ("still", "moving")
    protocols = {protocol.name: scored(names, level) for protocol in (OBJECTS, FOREGROUND)}
    runs = {name: SequenceRun(6, 0.06 / level, 2**20) for name in names}
    values: dict[str, object] = {
        "title": label,
        "paper": "",
        "given": Given.FIRST_MASK,
        "model": Model(10, "untrained, seed 0", trained=False),
        "runs": runs,
        "scored": protocols,
    }
    return Row(label=label, masks=masks, **{**values, **changes})  # type: ignore[arg-type]


@pytest.fixture
def report(davis_root: Path, tmp_path: Path) -> Path:
    """A report on the tiny data set with the true masks as result; one name is hostile."""
    masks = davis_root / "Annotations" / "480p"
    rows = [
        row("better", masks, 0.75, model=Model(10, "trained at home", trained=True)),
        row(HOSTILE, masks, 0.25),
        row("elsewhere", masks, 0.5, given=Given.UNKNOWN, model=None, runs={}),
        row("failed", tmp_path, 0.5, failure=f"RuntimeError: {HOSTILE}", scored={}, runs={}),
    ]
    path = tmp_path / "report.html"
    path.write_text(render_report(contents(rows, davis_root)), encoding="utf-8")
    return path


def contents(rows: Sequence[Row], root: Path) -> Contents:
    sequences = davis2017(root)
    folders: Mapping[str, Path] = {row.label: row.masks for row in rows if row.failure is None}
    pictures = take_pictures(sequences, folders, show_truth=True)
    return Contents(f"Title {HOSTILE}", rows, (OBJECTS, FOREGROUND), pictures, {"Command": HOSTILE}, "a,b\n", 2, "")


def test_names_are_escaped(report: Path) -> None:
    html = report.read_text()
    assert html.count("</script>") == 2, "the data and the code, each closed once"
    assert "<img" not in html
    data = json.loads(re.search(r'id="data">(.*?)</script>', html, re.DOTALL)[1])  # type: ignore[index]
    assert data["rows"][1]["label"] == HOSTILE


def test_nothing_is_loaded_from_elsewhere(report: Path) -> None:
    html = report.read_text()
    assert re.findall(r"https?://[^\"'\s]*", html) == ["http://www.w3.org/2000/svg"], "a name space, not an address"
    links = re.findall(r"(?:src|href)=\"([^\"]{0,5})", html)
    assert links
    assert all(link.startswith(("#", "data:")) for link in links)


def test_pictures_keep_to_their_budget(davis_root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sequences, masks = davis2017(davis_root), davis_root / "Annotations" / "480p"
    whole = take_pictures(sequences, {"copy": masks}, show_truth=True)
    assert [pictures.shown for pictures in whole] == [[0, 1, 2, 3, 4, 5]] * 2
    budget = sum(pictures.size for pictures in whole) // 2
    monkeypatch.setattr(report_pictures, "BUDGET_BYTES", budget)
    half = take_pictures(sequences, {"copy": masks}, show_truth=True)
    assert 0 < sum(pictures.size for pictures in half) <= budget
    assert all(len(pictures.shown) == len(pictures.masks["copy"]) < 6 for pictures in half)


def test_pictures_are_shown_with_the_pixels_of_their_source(tmp_path: Path) -> None:
    with VideoWriter(tmp_path / "a.mp4", 10, pixel_aspect=Fraction(2)) as writer:
        for value in (50, 100):
            writer.write(np.full((40, 60, 3), value, np.uint8))
    (tmp_path / "masks/a").mkdir(parents=True)
    write_mask(tmp_path / "masks/a/00001.png", np.ones((40, 60), np.uint8))
    sequence = VideoSequence("a", Video.open(tmp_path / "a.mp4"), {})
    (pictures,) = take_pictures([sequence], {"copy": tmp_path / "masks"}, show_truth=False)
    for uri in (*pictures.pictures, pictures.masks["copy"][1]):
        assert uri is not None
        with Image.open(io.BytesIO(base64.b64decode(uri.partition(",")[2]))) as image:
            assert image.size == (120, 40)


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[webdriver.Chrome]:
    """Chromium, without a window."""
    if CHROMIUM is None or DRIVER is None:
        pytest.skip("no Chromium with its driver is installed (Debian: apt install chromium chromium-driver)")
    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    for flag in ("headless=new", "no-sandbox", "disable-gpu", "disable-quic", "no-first-run", "disable-sync"):
        options.add_argument(f"--{flag}")
    options.add_argument("--disable-background-networking")
    options.add_argument("--disable-component-update")
    options.add_argument("--force-prefers-reduced-motion")  # Scrolling to a link must end before the next click.
    options.add_argument("--window-size=1300,1000")
    options.add_argument(f"--user-data-dir={tmp_path_factory.mktemp('chromium')}")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = webdriver.Chrome(options, webdriver.ChromeService(DRIVER))
    try:
        yield driver
    finally:
        driver.quit()


@pytest.fixture
def page(browser: webdriver.Chrome, report: Path) -> Iterator[webdriver.Chrome]:
    """The report, opened and painted; at the end, the browser must not have logged any error."""
    browser.get(report.as_uri())
    painted(browser, "still:3:masks")
    yield browser
    assert browser.get_log("browser") == []  # type: ignore[no-untyped-call]


def painted(browser: webdriver.Chrome, what: str) -> None:
    panels = browser.find_element(By.ID, "panels")
    WebDriverWait(browser, 30).until(lambda _: panels.get_attribute("data-painted") == what, f"{what} is not painted")


def heading(page: webdriver.Chrome, table: str, name: str) -> WebElement:
    return page.find_element(By.XPATH, f"//table[@id='table-{table}']/thead//button[normalize-space()='{name}']")


def first_column(page: webdriver.Chrome, table: str) -> list[str]:
    cells = page.find_elements(By.CSS_SELECTOR, f"#table-{table} tbody th")
    return [cell.get_attribute("data-value") or "" for cell in cells]


def test_tables_sort(page: webdriver.Chrome) -> None:
    assert first_column(page, "davis2017") == ["better", "elsewhere", HOSTILE, "failed"]
    heading(page, "davis2017", "J").click()
    assert first_column(page, "davis2017") == ["better", "elsewhere", HOSTILE, "failed"]
    heading(page, "davis2017", "J").click()
    assert first_column(page, "davis2017") == [HOSTILE, "elsewhere", "better", "failed"], "no value stays last"
    cell = page.find_element(By.CSS_SELECTOR, "#table-davis2017 th[aria-sort]")
    assert (cell.text, cell.get_attribute("aria-sort")) == ("J", "ascending")
    heading(page, "davis2017", "ms/frame").click()
    assert first_column(page, "davis2017")[:2] == ["better", HOSTILE], "the fastest first"


def test_slider_keys_and_views_paint(page: webdriver.Chrome) -> None:
    assert len(page.find_elements(By.CSS_SELECTOR, "#panels figure")) == 4, "the truth and three rows"
    slider = page.find_element(By.ID, "frame")
    slider.send_keys(Keys.ARROW_RIGHT)
    painted(page, "still:4:masks")
    assert page.find_element(By.ID, "frame-name").text == "frame 4 of 0–5"
    page.find_element(By.TAG_NAME, "body").send_keys("d")
    painted(page, "still:4:differences")
    assert page.find_element(By.ID, "difference-legend").is_displayed()
    slider.send_keys(Keys.HOME)
    painted(page, "still:0:differences")
    page.find_element(By.ID, "play").click()
    painted(page, "still:2:differences")
    page.find_element(By.ID, "play").click()


def test_masks_are_painted_where_the_objects_are(page: webdriver.Chrome) -> None:
    read = (
        "const canvas = document.querySelectorAll('#panels canvas')[1];"
        "return [...canvas.getContext('2d').getImageData(0, 16, 64, 1).data]"
    )
    line = np.reshape(page.execute_script(read), (64, 4))
    assert line[10, 0] > 150 > 100 > line[30, 0], "object 1 of the true mask is orange, the ground dark"


def test_links_open_a_sequence(page: webdriver.Chrome) -> None:
    page.find_element(By.CSS_SELECTOR, "#table-items-davis2016 a[href='#look=moving']").click()
    painted(page, "moving:3:masks")
    assert Select(page.find_element(By.ID, "sequence")).first_selected_option.text == "moving"
    for link in page.find_elements(By.CSS_SELECTOR, "nav a[href^='#']"):
        target = (link.get_attribute("href") or "").rpartition("#")[2]
        assert page.find_elements(By.ID, target), f"#{target} leads nowhere"
        link.click()
    download = page.find_element(By.CSS_SELECTOR, "nav a[download]").get_attribute("href")
    assert download == "data:text/csv;charset=utf-8;base64,YSxiCg=="


def test_a_malformed_link_is_as_none(page: webdriver.Chrome, report: Path) -> None:
    page.get("about:blank")
    page.get(f"{report.as_uri()}#look=%")
    painted(page, "still:3:masks")
    page.execute_script("location.hash = '#look=moving'")
    painted(page, "moving:3:masks")
    page.execute_script("location.hash = '#look=%E0'")
    assert Select(page.find_element(By.ID, "sequence")).first_selected_option.text == "moving"


def test_a_click_on_the_chart_goes_to_the_frame(page: webdriver.Chrome) -> None:
    chart = page.find_element(By.CSS_SELECTOR, "#over-time svg")
    page.execute_script("arguments[0].scrollIntoView({block: 'center'})", chart)
    webdriver.ActionChains(page).move_to_element_with_offset(chart, chart.size["width"] // 2 - 20, 0).click().perform()
    painted(page, "still:5:masks")


def test_a_row_can_be_hidden(page: webdriver.Chrome) -> None:
    page.find_element(By.XPATH, "//button[@aria-pressed][normalize-space()='better']").click()
    painted(page, "still:3:masks")
    captions = [caption.text for caption in page.find_elements(By.CSS_SELECTOR, "#panels figcaption span:first-child")]
    assert [caption for caption in captions if caption] == ["Ground truth", HOSTILE, "elsewhere"]


def test_charts_are_drawn(page: webdriver.Chrome) -> None:
    assert len(page.find_elements(By.CSS_SELECTOR, "#scatter circle")) == 2, "rows that were timed"
    assert len(page.find_elements(By.CSS_SELECTOR, "#by-sequence circle")) == 6, "three rows on two sequences"
    assert len(page.find_elements(By.CSS_SELECTOR, "#over-time path")) == 3


def test_narrow_pages_do_not_scroll_sideways(page: webdriver.Chrome) -> None:
    page.set_window_size(500, 900)
    try:
        overflow = "return document.documentElement.scrollWidth - document.documentElement.clientWidth"
        assert page.execute_script(overflow) <= 0
    finally:
        page.set_window_size(1300, 1000)
