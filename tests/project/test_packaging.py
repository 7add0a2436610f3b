"""What is built holds what it must and nothing else, and the tests of a source distribution run."""

import os
import re
import subprocess
import sys
import tarfile
import zipfile
from email import message_from_bytes
from pathlib import Path

import pytest

import hpjax as hpx

ROOT = Path(__file__).parents[2]
NAME = f"hpjax-{hpx.__version__}"


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """A folder with the source distribution and the wheel that is built from it, without a network."""
    folder = tmp_path_factory.mktemp("dist")
    command = [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(folder), str(ROOT)]
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    assert done.returncode == 0, done.stdout
    assert "warning" not in done.stdout.lower(), done.stdout
    return folder


@pytest.fixture(scope="module")
def unpacked(built, tmp_path_factory):
    folder = tmp_path_factory.mktemp("sdist")
    with tarfile.open(built / f"{NAME}.tar.gz") as file:
        file.extractall(folder, filter="data")
    return folder / NAME


def test_the_wheel_holds_the_package_and_nothing_else(built):
    with zipfile.ZipFile(built / f"{NAME}-py3-none-any.whl") as wheel:
        names = set(wheel.namelist())
        metadata = message_from_bytes(wheel.read(f"{NAME}.dist-info/METADATA"))
    files = (path for path in (ROOT / "hpjax").rglob("*") if path.is_file() and path.suffix != ".pyc")
    package = {str(path.relative_to(ROOT)) for path in files}
    assert "hpjax/results/report/page.html" in package
    about = {"METADATA", "RECORD", "WHEEL", "entry_points.txt", "licenses/LICENSE"}
    assert names == package | {f"{NAME}.dist-info/{name}" for name in about}
    assert (metadata["Name"], metadata["Version"]) == ("hpjax", hpx.__version__)
    assert metadata["License-Expression"] == "Apache-2.0"
    assert "Typing :: Typed" in metadata.get_all("Classifier")


def test_the_source_distribution_is_the_repository(unpacked):
    if not (ROOT / ".git").exists():
        pytest.skip("not a git checkout: which files belong to the repository is not known")
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout.splitlines()
    tracked = {name for name in listed if (ROOT / name).exists() and not name.startswith((".ci/", ".github/"))}
    there = {str(path.relative_to(unpacked)) for path in unpacked.rglob("*") if path.is_file()}
    assert there == tracked | {"PKG-INFO"}


@pytest.mark.slow
def test_the_tests_of_the_source_distribution_run(unpacked, tmp_path):
    environment = os.environ | {"PYTHONPATH": str(unpacked)}

    def run(*arguments):
        done = subprocess.run(
            [sys.executable, *arguments], cwd=unpacked, env=environment, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stdout[-5_000:] + done.stderr[-5_000:]
        return done.stdout

    assert Path(run("-c", "import hpjax; print(hpjax.__file__)").strip()).is_relative_to(unpacked)
    pytest_here = ("-m", "pytest", "-o", f"cache_dir={tmp_path}")  # outside of what another test lists
    run(*pytest_here, "--collect-only")
    assert " passed" in run(*pytest_here, "tests/core/test_space.py", "tests/project/test_bench.py")


def test_the_citation_names_this_version():
    citation = (ROOT / "CITATION.cff").read_text()
    assert re.findall(r"^version: (.*)$", citation, re.MULTILINE) == [hpx.__version__]
