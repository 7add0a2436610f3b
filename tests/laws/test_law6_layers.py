"""Law 6, and the rooms: imports go downward only, in no circle, and search and engine do not know each other."""

import ast
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import hpjax

PACKAGE = Path(hpjax.__file__).parent
LONGEST = 350
MOST = 7  # parameters of a function
# What has more, and why.
EXCEPTIONS = {
    "frontends/sklearn.py __init__": "a public constructor",
    "nn/dense.py Dense": "a public constructor",
    "nn/dropout.py attend": "its signature is Flax's: it takes the place of an attention function",
    "training/builder.py supervised": "a public constructor",
}


def lint_imports(folder):
    """Checks the contracts in ``pyproject.toml`` of the package in a folder."""
    command = "from importlinter.cli import lint_imports_command; lint_imports_command(['--no-cache', '--no-logo'])"
    environment = {**os.environ, "PYTHONPATH": str(folder)}
    return subprocess.run([sys.executable, "-c", command], cwd=folder, env=environment, capture_output=True, text=True)


def test_the_rooms_import_downward_and_in_no_circle():
    found = lint_imports(PACKAGE.parent)
    assert found.returncode == 0, found.stdout + found.stderr


@pytest.mark.parametrize(
    ("file", "line"),
    [
        ("engine/lane.py", "import hpjax.samplers"),
        ("samplers/base.py", "import hpjax.engine.lane"),
        ("results/trial.py", "import hpjax.results.result"),
    ],
    ids=["engine-knows-search", "search-knows-engine", "circle"],
)
def test_an_arrow_back_is_found(tmp_path, file, line):
    shutil.copytree(PACKAGE, tmp_path / "hpjax", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(PACKAGE.parent / "pyproject.toml", tmp_path)
    with (tmp_path / "hpjax" / file).open("a") as module:
        module.write(f"\n{line}\n")
    found = lint_imports(tmp_path)
    assert found.returncode == 1
    assert "BROKEN" in found.stdout


def test_a_file_can_be_read_whole():
    lines = {str(path.relative_to(PACKAGE)): len(path.read_text().splitlines()) for path in PACKAGE.rglob("*.py")}
    assert {name: count for name, count in lines.items() if count > LONGEST} == {}


def test_a_function_takes_few_parameters():
    many = set()
    for path in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
                own = node.args
                listed = [*own.posonlyargs, *own.args, *own.kwonlyargs, own.vararg, own.kwarg]
                if sum(one is not None for one in listed) > MOST:
                    many.add(f"{path.relative_to(PACKAGE)} {getattr(node, 'name', 'lambda')}")
    assert many == EXCEPTIONS.keys()


def test_there_are_twelve_rooms_and_no_loose_files():
    rooms = {path.parent.name for path in PACKAGE.glob("*/__init__.py")}
    assert len(rooms) <= 12
    assert {path.name for path in PACKAGE.glob("*.py")} == {"__init__.py", "__main__.py"}
