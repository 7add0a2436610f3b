"""The manifest: what decides the bits of a run, and where and with what it ran."""

import hashlib
import re
import sys
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from hpjax.errors import RunError
from hpjax.hparams import Hparams
from hpjax.keys import lane_key
from hpjax.planning import Prepared, tracer
from hpjax.program import Program
from hpjax.settings import Settings
from hpjax.space import show
from hpjax.store import DATABASE, FORMAT, MANIFEST, Store, differences, read_manifest


def manifest(settings: Settings, prepared: Prepared) -> dict[str, Any]:
    """What a run directory says of its run, as JSON."""
    plan = prepared.plan
    packages = ("hpjax", "jax", "jaxlib", "flax", "optax", "numpy", "scipy")
    return {
        "format": FORMAT,
        "created": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "command": [Path(sys.argv[0]).name, *sys.argv[1:]] if sys.argv else [],
        "versions": {"python": sys.version.split()[0], **{name: version(name) for name in packages}},
        "devices": {"count": plan.devices[0], "kind": plan.devices[1]},
        "sweep": description(settings, prepared),
        "plan": str(plan).splitlines(),
    }


def description(settings: Settings, prepared: Prepared) -> dict[str, Any]:
    """What decides the bits of the sweep, as JSON: two sweeps of equal descriptions give equal results."""
    plan, points = prepared
    traced = [v.name for v in plan.verdicts if v.traced]
    tracing = tracer(settings)
    text = str(
        jax.make_jaxpr(_life(settings.program))(tracing.hparams(points[0], traced), tracing.train, tracing.valid)
    )
    return {
        "space": {f"alternative {i}": {n: str(d) for n, d in b.items()} for i, b in enumerate(settings.space.branches)},
        "names": list(settings.space.names),
        "trials": plan.trials,
        "replicates": plan.replicates,
        "sampler": show(type(settings.sampler)),
        "points": _digest(repr([{n: show(v) for n, v in point.items()} for point in points])),
        "scheduler": None if settings.scheduler is None else show(type(settings.scheduler)),
        "objective": [settings.objective.metric, settings.objective.direction],
        "seed": settings.seed,
        "randomness": settings.randomness,
        "width": plan.width,
        "steps": _digest(repr(plan.steps)) if len(set(plan.steps)) > 1 else plan.steps[0],
        "eval_every": sorted({g.eval_every for g in plan.groups}),
        "program": {**settings.program.describe, "code": _digest(re.sub(r"0x[0-9a-f]+", "", text))},
        "data": _data_digest(settings.program),
    }


def _life(program: Program) -> Callable[[Hparams, Any, Any], Any]:
    """A short life of a lane: what is hashed in place of the user's code."""

    def life(h: Hparams, train: Any, valid: Any) -> Any:
        key = lane_key(0, 0)
        state = program.init(key, h)
        state, metrics = program.step(key, state, program.batch(key, jnp.int32(0), train, h), h)
        return state, metrics, program.evaluate(key, state, valid, h)

    return life


def recorded_width(path: Path) -> int | None:
    """The width of the run in a directory, None where there is no run."""
    if not (path / MANIFEST).is_file():
        return None
    width = read_manifest(path).get("sweep", {}).get("width")
    return width if isinstance(width, int) else None


def finished(path: Path, manifest: dict[str, Any]) -> Store | None:
    """The store of a finished run of the same sweep, None where the directory is free for one.

    Raises:
      RunError: the directory holds something else.
    """
    if not path.exists():
        return None
    if not path.is_dir():
        raise RunError(f"{str(path)!r} is a file, not a run directory. Choose another name.")
    if not (path / MANIFEST).exists():
        if any(path.iterdir()):
            raise RunError(f"{str(path)!r} holds files but no run. Choose an empty or a new directory.")
        return None
    there = read_manifest(path)
    lines = differences(there.get("sweep"), manifest["sweep"])
    if lines:
        raise RunError(
            f"{str(path)!r} holds a different sweep. What differs:\n  "
            + "\n  ".join(lines)
            + "\nChoose another directory, or make the sweep what it was."
        )
    if not (path / DATABASE).exists():
        return None
    store = Store.open(path)
    return store if store.seconds() is not None else None


def _digest(content: str | bytes) -> str:
    return hashlib.sha256(content.encode() if isinstance(content, str) else content).hexdigest()[:16]


def _data_digest(program: Program) -> dict[str, str] | None:
    data = program.data
    if data is None:
        return None
    return {
        name: _digest(
            b"".join(
                repr((np.shape(a), str(np.asarray(a).dtype))).encode() + np.asarray(a).tobytes()
                for a in jax.tree.leaves(split)
            )
        )
        for name, split in (("train", data.train), ("valid", data.valid), ("test", data.test))
    }
