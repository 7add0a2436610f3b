"""Devices that are not there: what users type wrong, and what is not installed. No compiler is needed."""

from importlib.metadata import PackageNotFoundError
from math import prod

import jax
import pytest

from hpjax import InputError
from hpjax.engine import targets
from hpjax.engine.chips import CHIPS, chip_of


def installed(monkeypatch, **found):
    """Has these versions of packages installed, and no others."""

    def version(package):
        if package not in found:
            raise PackageNotFoundError(package)
        return found[package]

    monkeypatch.setattr(targets, "version", version)


@pytest.mark.parametrize("name", ["", "tpu", "v5", "a100", "V5E:2x4", 5])
def test_unknown_chip(name):
    with pytest.raises(InputError, match=r"must be one of v4:2x2x2, v5e:2x4, .*h100, h200\. Write target="):
        targets.described(name)


@pytest.mark.parametrize("name", ["v5e:", "v5e:two", "v5e:2x", "v5e:2x2x2x2"])
def test_no_topology(name, monkeypatch):
    installed(monkeypatch, libtpu="0.0.42.1")
    monkeypatch.setattr(targets, "requires", lambda package: ['libtpu==0.0.42.*; extra == "tpu"'])
    monkeypatch.setattr(targets, "_topology", lambda *args, **options: ["device"] * 4)
    if name == "v5e:":
        assert len(targets.described(name).devices) == 4, "as without a colon"
        return
    with pytest.raises(InputError, match=r"must be a slice that exists, such as v5e:2x2, v5e:2x4"):
        targets.described(name)


def test_a_slice_that_is_none(monkeypatch):
    installed(monkeypatch, libtpu="0.0.42.1")
    monkeypatch.setattr(targets, "requires", lambda package: ['libtpu==0.0.42.*; extra == "tpu"'])

    def described(*args, **options):
        raise ValueError("Topology layout is not divisible\nmore")

    monkeypatch.setattr(targets, "_topology", described)
    with pytest.raises(
        InputError, match=r"such as v5e:2x2.* says: ValueError: Topology layout is not divisible\. Write"
    ):
        targets.described("v5e:3x3")


def test_no_compiler(monkeypatch):
    installed(monkeypatch)
    with pytest.raises(InputError, match=r"needs the compiler for TPUs, .* Write pip install 'libtpu=="):
        targets.described("v5e:2x4")
    with pytest.raises(InputError, match=rf"Write pip install jax-cuda13-plugin=={jax.__version__}, or"):
        targets.described("h100")


def test_compiler_of_another_jax(monkeypatch):
    installed(monkeypatch, libtpu="0.0.41", **{"jax-cuda13-plugin": "0.9.0"})
    monkeypatch.setattr(targets, "requires", lambda package: ['libtpu==0.0.42.*; extra == "tpu"'])
    with pytest.raises(InputError, match=r"needs libtpu==0\.0\.42\.\*, which jax .* installed is 0\.0\.41"):
        targets.described("v5e:2x4")
    with pytest.raises(InputError, match=r"needs jax-cuda13-plugin .* installed is 0\.9\.0"):
        targets.described("h100")


def test_count(monkeypatch):
    installed(monkeypatch, libtpu="0.0.42.1", **{"jax-cuda13-plugin": jax.__version__})
    monkeypatch.setattr(targets, "requires", lambda package: ['libtpu==0.0.42.*; extra == "tpu"'])

    def described(platform, *args, topology="2x2x1", **options):
        return list(range(prod(map(int, topology.split("x")))))

    monkeypatch.setattr(targets, "_topology", described)
    assert targets.described("v5e:2x2").name == "v5e:2x2"
    assert targets.described("v5e:2x2", 1).devices == (0,)
    assert targets.described("h100").devices == (0,)
    assert targets.described("h100", 8).name == "8 × h100"
    for name, count in (("v5e:2x2", 5), ("v5e:2x2", 0), ("h100", 0)):
        with pytest.raises(InputError, match=r"Sweep.plan.count = \d: must"):
            targets.described(name, count)
    with pytest.raises(InputError, match="names a GPU, which has no topology"):
        targets.described("h100:2x2")


def test_chips():
    """The kinds are as JAX names the devices; the longest name wins, since "TPU v5" begins that of v5e."""
    assert chip_of("TPU v5 lite").name == "v5e"
    assert chip_of("TPU v5").name == "v5p"
    assert chip_of("NVIDIA H100 80GB HBM3").name == "h100"
    assert chip_of("cpu") is None
    for chip in CHIPS.values():
        assert chip.source.startswith("https://")
        assert chip.float32 <= chip.bfloat16
        assert chip.limit < chip.memory


def test_what_cannot_go_together():
    from hpjax.sweep.planning.targets import asked_target

    assert asked_target(None, None, True) is None
    with pytest.raises(InputError, match=r"Sweep.plan.count = 8: needs a target\. Write target="):
        asked_target(None, 8, False)
    with pytest.raises(InputError, match=r"Sweep.plan.measure = True: cannot go with a target.*\. Leave measure out"):
        asked_target("h100", None, True)
