"""What notebooks show of objects: HTML in which all that users named stays text, and reprs that can be read."""

from html.parser import HTMLParser

import numpy as np
import pytest

import hpjax as hpx
from hpjax.core import html
from tests.support.programs import SPACE, classifier, quadratic


class Cells(HTMLParser):
    """The texts of a piece of HTML by their innermost tags; what is not closed in its order is an error."""

    def __init__(self, source):
        super().__init__()
        self.open, self.texts, self.tags = [], [], set()
        self.feed(source)
        self.close()
        assert not self.open

    def handle_starttag(self, tag, attrs):
        self.tags.add(tag)
        if tag != "br":
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.texts.append((self.open[-1], data))

    def of(self, tag):
        return [text for own, text in self.texts if own == tag]


EVIL = "<script>alert(1)</script>&<b>"


@pytest.fixture(scope="module")
def ran():
    space = hpx.Space(rate=hpx.Uniform(0.1, 0.4), kind=hpx.Choice(EVIL, "b"))
    sweep = hpx.Sweep(quadratic(10, 5), space, trials=4, devices=1)
    return sweep, sweep.run(progress=False)


def test_results_trials_plans_and_spaces_are_tables(ran):
    sweep, result = ran
    shown = Cells(result._repr_html_())
    assert shown.of("th") == ["trial", "rate", "kind", "train/loss", "valid/loss", "status", "step"]
    assert [int(text) for text in shown.of("td")[::7]] == result.ranking
    assert shown.of("p") == ["4 trials: 4 complete; best by minimize valid/loss"]
    trial = Cells(result.best._repr_html_())
    assert trial.of("td")[:2] == ["rate", str(result.best.hparams["rate"])]
    assert Cells(sweep.space._repr_html_()).of("td")[:3] == ["rate", "Uniform(0.1, 0.4)", "linear"]
    assert "".join(Cells(sweep.plan()._repr_html_()).of("pre")) == str(sweep.plan())
    for each in (result, result.best, sweep.space, sweep.plan()):
        page = Cells(each._repr_html_())
        assert not page.tags & {"script", "b"}
    assert EVIL in Cells(result._repr_html_()).of("td")


def test_findings_and_figures_display_themselves(ran):
    finding = hpx.diagnose(hpx.Sweep(quadratic(20, 5), hpx.Space(rate=9.0), trials=1).run(progress=False))[0]
    assert Cells(finding._repr_html_()).of("td")[:2] == ["0", "diverged"]
    assert ran[1].plot()._repr_png_()[:8] == b"\x89PNG\r\n\x1a\n"


def test_columns_of_numbers_are_on_the_right():
    shown = html.table(["a", "b"], [["1", "x"], ["2.5", "y"]], "two\nlines")
    assert shown.count('style="text-align: right"') == 3
    assert Cells(shown).of("p") == ["two", "lines"]
    assert Cells(html.table(["a"], [])).of("th") == ["a"]


def test_reprs_fit_a_few_lines():
    program = classifier()
    assert repr(quadratic(10, 5)) == "Program(init=init, step=step, evaluate=evaluate, steps=10, eval_every=5)"
    assert "kind=supervised" in repr(program)
    assert (
        repr(program.data)
        == "Data(train=(54, 5) and (54,), valid=(18, 5) and (18,), test=(18, 5) and (18,), name='blobs')"
    )
    sweep = hpx.Sweep(program, SPACE, trials=4, sampler=hpx.Random(), objective=hpx.maximize("valid/accuracy"))
    shown = repr(sweep)
    assert shown.startswith("Sweep(program=Program(")
    assert ", trials=4, sampler=Random(), objective=" in shown
    assert len(shown) < 600
    large = hpx.Data(np.zeros((1000, 1000), np.float32), None, name="large")
    assert repr(large) == "Data(train=(1000, 1000), valid=None, test=None, name='large')"


def test_data_that_a_function_holds_counts_by_its_values():
    """Not by its repr, which has none."""
    from hpjax.core.code_digest import code_digest

    first, second, third = (hpx.Data(np.full(3, value), None, name="a") for value in (1.0, 1.0, 2.0))
    digests = [code_digest(lambda key, h, data=data: data.train) for data in (first, second, third)]
    assert digests[0] == digests[1] != digests[2]
