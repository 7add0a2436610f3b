"""Where a package of an extra is missing, the error names a command that installs it."""

import runpy
import sys
import tomllib
from importlib import import_module
from pathlib import Path

import pytest
from packaging.requirements import Requirement

import hpjax as hpx
from hpjax.core.errors import REQUIREMENTS
from tests.support.programs import RATES, quadratic, rates

PROJECT = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())["project"]
EXTRAS = [Requirement(line) for lines in PROJECT["optional-dependencies"].values() for line in lines]


@pytest.mark.parametrize("package", REQUIREMENTS)
def test_the_command_installs_what_the_extra_does(package):
    asked = Requirement(REQUIREMENTS[package])
    declared = [each for each in EXTRAS if each.name == package]
    assert asked.name == package
    assert declared, f"no extra of pyproject.toml has {package}"
    assert {str(each.specifier) for each in declared} == {str(asked.specifier)}


@pytest.fixture(scope="module")
def result():
    return hpx.Sweep(quadratic(2, 2), RATES, sampler=rates(0.1)).run(progress=False)


def fresh(monkeypatch, name):
    """A public module of hpjax, imported anew."""
    monkeypatch.delitem(sys.modules, hpx._MODULES[name], raising=False)
    return import_module(hpx._MODULES[name])


USES = {
    "to_pandas": ("pandas", "pandas", lambda result, *_: result.to_pandas()),
    "to_optuna": ("optuna", "optuna", lambda result, to, _: result.to_optuna(to / "journal")),
    "plot": ("matplotlib", "matplotlib", lambda result, *_: result.plot()),
    "export": ("safetensors.numpy", "safetensors", lambda result, to, _: result[0].export(to / "a.safetensors")),
    "digits": ("sklearn.datasets", "scikit-learn", lambda *_: hpx.data.digits()),
    "Optuna": ("optuna.samplers", "optuna", lambda *_: hpx.Optuna(None)),
    "hpx.sklearn": ("sklearn.base", "scikit-learn", lambda *rest: fresh(rest[-1], "sklearn")),
    "hpx.cluster": ("click", "click", lambda *rest: fresh(rest[-1], "cluster")),
}


@pytest.mark.parametrize("use", USES)
def test_whatever_needs_a_package_says_so(use, result, tmp_path, monkeypatch):
    module, package, call = USES[use]
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(ImportError, match=rf"needs {package}: pip install '{package}>=\d"):
        call(result, tmp_path, monkeypatch)
    assert list(tmp_path.iterdir()) == []


def test_the_command_line_says_so_without_a_traceback(monkeypatch):
    monkeypatch.setitem(sys.modules, "click", None)
    for name in [name for name in sys.modules if name.startswith("hpjax.") and name.endswith((".cli", ".__main__"))]:
        monkeypatch.delitem(sys.modules, name)
    with pytest.raises(SystemExit, match=r"^the command line needs click: pip install 'click>=\d"):
        runpy.run_module("hpjax", run_name="__main__")
