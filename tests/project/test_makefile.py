"""Each Python has an environment of its own, and a Python that is missing is told of."""

import os
import subprocess
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement

ROOT = Path(__file__).parents[2]


def make(*arguments):
    # Without what a make that runs these tests was told.
    environment = {name: value for name, value in os.environ.items() if not name.startswith("MAKE")}
    return subprocess.run(["make", *arguments], cwd=ROOT, env=environment, capture_output=True, text=True)


@pytest.mark.parametrize(
    ("python", "folder"),
    [("python3", ".venv"), ("python3.99", ".venv-python3.99"), ("/opt/bin/python3.99", ".venv-python3.99")],
)
def test_an_environment_for_each_python(python, folder):
    shown = make("--dry-run", "lint", f"PYTHON={python}")
    assert shown.returncode == 0, shown.stderr
    assert f"{folder}/bin/ruff check ." in shown.stdout
    if folder != ".venv":  # made already, that one
        assert f"{python} -m venv {folder}" in shown.stdout


def test_without_the_newest_python_nothing_passes_for_tested():
    done = make("test-newest", "NEWEST=python3.99")
    assert done.returncode != 0
    assert "NOT TESTED with the newest versions: there is no python3.99" in done.stderr
    assert "pyenv install 3.99" in done.stderr


def test_what_lands_is_tested_with_the_newest_versions():
    if not (ROOT / ".ci/run").exists():
        pytest.skip("no checkout: a source distribution has no .ci")
    assert "make test-newest" in (ROOT / ".ci/run").read_text()


def test_every_requirement_has_a_lowest_version():
    """Else `make test-lowest` would take the first that there ever was."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = [line for lines in project["optional-dependencies"].values() for line in lines]
    asked = [Requirement(line) for line in (*project["dependencies"], *extras)]
    assert [each.name for each in asked if each.name != "hpjax" and ">=" not in str(each.specifier)] == []
