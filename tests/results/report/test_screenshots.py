"""What reports look like. `make screenshots` makes those of docs/report.md here, of what `make sweep` trains."""

import dataclasses
import io
import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import hpjax as hpx
from tests.support import browser
from tests.support.programs import example

FOLDER = os.environ.get("HPJAX_SCREENSHOTS")
TRIALS, STEPS = (256, 2_000) if FOLDER else (12, 40)

# Of each picture: which page, the width of the window, whether it is dark, and the sections from first to last.
PICTURES = {
    "report": ("digits", 1100, False, "header", "#curves"),
    "report_hyperparameters": ("digits", 1100, False, "#slices", "#importance"),
    "report_population": ("population", 1100, False, "#lineage", "#lineage"),
    "report_phone": ("digits", 390, True, "#curves", "#curves"),
}


@pytest.fixture(scope="module")
def pages(tmp_path_factory):
    """A page of the sweep on digits, and one of a population."""
    folder, digits = tmp_path_factory.mktemp("pages"), example("digits/sweep").sweep
    sized = dataclasses.replace(digits.program, steps=STEPS, eval_every=STEPS // 20)
    digits = dataclasses.replace(digits, program=sized, trials=TRIALS)
    ranges = {"learning_rate": hpx.LogUniform(1e-4, 1.0), "weight_decay": hpx.LogUniform(1e-6, 1e-2)}
    space = hpx.Space(**ranges, momentum=hpx.ReverseLogUniform(0.5, 0.99), hidden=32)
    population = hpx.Sweep(sized, space, trials=24, scheduler=hpx.PBT(every=STEPS // 10))
    for name, sweep in {"digits": digits, "population": population}.items():
        sweep.run(folder / name, progress=False).report(folder / f"{name}.html")
    return folder


@pytest.mark.parametrize("name", PICTURES)
def test_pictures_show_something(name, chrome, pages):
    """No part is cut off at the side, and in each chart something is drawn."""
    which, width, dark, first, last = PICTURES[name]
    shown = browser.opened(chrome, (pages / f"{which}.html").as_uri(), width=width, dark=dark)
    shown.scroll_to_end()
    shown.page.evaluate("scrollTo(0, 0)")
    shown.page.wait_for_timeout(500)
    top, end = (shown.page.locator(each).bounding_box() for each in (first, last))
    clip = {"x": 0, "y": top["y"], "width": width, "height": end["y"] + end["height"] - top["y"]}
    taken = shown.page.screenshot(full_page=True, clip=clip)
    if FOLDER:
        Image.open(io.BytesIO(taken)).quantize(256).save(Path(FOLDER) / f"{name}.png", optimize=True)
    for chart in shown.page.locator(f"{first} .chart, {last} .chart").all():
        if chart.is_visible():
            drawn = np.asarray(Image.open(io.BytesIO(chart.screenshot())).convert("RGB"))
            assert (drawn != drawn[0, 0]).any(axis=2).mean() > 0.01, "something is drawn"
    picture = np.asarray(Image.open(io.BytesIO(taken)).convert("RGB"))
    assert picture.shape[1] == width
    margin = picture[:, -3:]
    assert (margin == margin[0, 0]).all(), "nothing reaches the edge"
    assert shown.errors == []
    shown.page.context.close()
