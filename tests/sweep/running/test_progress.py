"""Progress in a notebook, of which IPython's own display protocol is read."""

import builtins

import pytest
from IPython.core.displaypub import CapturingDisplayPublisher
from IPython.core.interactiveshell import InteractiveShell
from traitlets.config import Config

import hpjax as hpx
from hpjax.sweep.running import line
from tests.support.programs import quadratic


class ZMQInteractiveShell(InteractiveShell):
    """The shell of a notebook's kernel, by whose name it is known, without the kernel."""


@pytest.fixture
def published(monkeypatch, tmp_path):
    """What is sent to a notebook, as Jupyter's messages have it."""
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path))
    shell = ZMQInteractiveShell.instance(config=Config({"HistoryManager": {"enabled": False}}))
    shell.display_pub = CapturingDisplayPublisher(parent=shell)
    monkeypatch.setattr(builtins, "get_ipython", lambda: shell, raising=False)
    monkeypatch.setattr(line, "SECONDS_BETWEEN_LINES", 0.0)
    yield shell.display_pub.outputs
    ZMQInteractiveShell.clear_instance()


def test_one_line_is_updated_in_place(published, capsys):
    hpx.Sweep(quadratic(40, 4), hpx.Space(rate=hpx.LogUniform(0.01, 0.4)), trials=4, devices=1).run()
    lines = [each for each in published if (each["transient"] or {}).get("display_id")]
    assert len({each["transient"]["display_id"] for each in lines}) == 1
    assert [each["update"] for each in lines] == [False, *[True] * (len(lines) - 1)]
    shown = [each["data"]["text/plain"] for each in lines]
    assert "compiling" in shown[1]
    assert "1/1 step 20/40 · 4/4 lanes" in "".join(shown)
    assert '<progress value="80" max="160"' in "".join(each["data"].get("text/html", "") for each in lines)
    assert lines[-1]["data"] == {"text/plain": "", "text/html": ""}, "it is gone at the end"
    kept = "".join(each["data"]["text/plain"] for each in published if each not in lines)
    assert "compiled in" in kept
    assert "step 40/40" in kept
    assert capsys.readouterr().err == ""


def test_names_in_a_line_stay_text(published):
    shown = line.NotebookLine()
    shown.show("<b>best</b> & more", 1, 2)
    assert published[-1]["data"]["text/html"].endswith("&lt;b&gt;best&lt;/b&gt; &amp; more")


def test_nothing_is_sent_where_no_progress_is_wanted(published):
    hpx.Sweep(quadratic(4, 4), hpx.Space(rate=0.1), trials=1, devices=1).run(progress=False)
    assert published == []
