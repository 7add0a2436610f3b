"""The manifest: what decides the bits of a run, and where and with what it ran."""

import hashlib
import json
import sys
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import fields, is_dataclass
from functools import partial
from importlib.metadata import version
from types import FunctionType
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from hpjax.core.choice import Choice
from hpjax.core.format import show
from hpjax.core.hashing import digest, without_addresses
from hpjax.core.hparams import Hparams
from hpjax.core.keys import lane_key
from hpjax.core.program import Program
from hpjax.data.stream import Stream, first_batch_of
from hpjax.results.store.manifest import FORMAT, origin
from hpjax.sweep.planning.grouping import tracer_of
from hpjax.sweep.planning.plan import Plan
from hpjax.sweep.spec import SweepSpec

# Of what samplers and schedulers hold so many characters are told.
LONG = 2000


def manifest(spec: SweepSpec, plan: Plan, recorded: bool) -> dict[str, Any]:
    """What a run says of itself, as JSON; digests of code and data only where it is recorded in a directory."""
    packages = ("hpjax", "jax", "jaxlib", "flax", "optax", "numpy", "scipy")
    return {
        "format": FORMAT,
        "extended": 0,
        "extended_by": [],
        **origin(),
        "versions": {"python": sys.version.split()[0], **{name: version(name) for name in packages}},
        "devices": {"count": plan.devices[0], "kind": plan.devices[1]},
        "sweep": description(spec, plan) | (digests(spec, plan) if recorded else {}),
        "plan": str(plan).splitlines(),
    }


def description(spec: SweepSpec, plan: Plan) -> dict[str, Any]:
    """What the sweep is, as JSON: names and numbers, with nothing that takes long to find out."""
    branches = spec.space.branches
    return {
        "space": {f"alternative {i}": {n: str(d) for n, d in b.items()} for i, b in enumerate(branches)},
        "names": list(spec.space.names),
        "ranges": [{n: list(r) for n, d in b.items() if (r := d.range()) is not None} for b in branches],
        "options": [{n: [*map(show, d.options)] for n, d in b.items() if isinstance(d, Choice)} for b in branches],
        "scales": {name: spec.space.scale(name) for name in spec.space.names},
        "metrics": sorted({name for shapes in plan.shapes for name in shapes.metrics}),
        "trials": plan.trials,
        "shard": None if plan.shard is None else [str(plan.shard)],
        "rounds": list(plan.rounds),
        "replicates": plan.replicates,
        "folds": plan.folds,
        "sampler": _abridged(_told(spec.sampler)),
        "points": digest(repr([{n: show(v) for n, v in point.items()} for point in plan.points])),
        "scheduler": None if spec.scheduler is None else _told(spec.scheduler),
        "objective": [spec.objective.metric, spec.objective.direction, spec.objective.quantile],
        "seed": spec.seed,
        "randomness": spec.randomness,
        "width": list(plan.widths),
        "kernels": list(plan.kernels),
        "steps": digest(repr(plan.lengths)) if len(set(plan.lengths)) > 1 else plan.steps[0],
        "eval_every": sorted({g.eval_every for g in plan.groups}),
        "program": {name: str(value) for name, value in spec.program.describe.items()},
    }


def digests(spec: SweepSpec, plan: Plan) -> dict[str, Any]:
    """What the code and the data are, as digests: with ``description`` all that decides the bits of the sweep."""
    tracing = tracer_of(spec)
    traced = [v.name for v in plan.verdicts if v.traced]
    code = hashlib.sha256()
    for group in plan.groups:
        h = tracing.hparams(plan.points[group.trials[0]], traced)
        program = jax.make_jaxpr(_life(spec.program))(h, tracing.train, tracing.valid)
        code.update(without_addresses(str(program)).encode())
        for constant in program.consts:
            _add(code, constant)
    data = spec.program.data
    splits = {} if data is None else {name: getattr(data, name) for name in ("train", "valid", "test")}
    of_data = {name: hashlib.sha256() for name in splits}
    for name, split in splits.items():
        if isinstance(split, Stream):  # it cannot be read to its end: what it is called, and its first batch
            of_data[name].update(f"stream {split.name}".encode())
        for array in jax.tree.leaves(first_batch_of(split)):
            _add(of_data[name], array)
    return {"code": _short(code), "data": {name: _short(digest) for name, digest in of_data.items()}}


def _life(program: Program) -> Callable[[Hparams, Any, Any], Any]:
    """A short life of a lane: what is hashed in place of the user's code."""

    def life(h: Hparams, train: Any, valid: Any) -> Any:
        key = lane_key(0, 0)
        state = program.init(key, h)
        state, metrics = program.step(key, state, program.batch(key, jnp.int32(0), train, h), h)
        evaluated = program.evaluate(key, state, valid, h)
        reported = {f"train/{name}": v for name, v in metrics.items()} | {f"valid/{n}": v for n, v in evaluated.items()}
        state, done = program.react(state, reported, h)
        return metrics, evaluated, done, program.finish(state, h)

    return life


def _add(digest: Any, array: Any) -> None:
    array = np.ascontiguousarray(array)
    digest.update(f"{array.shape}{array.dtype}".encode())
    digest.update(array.view(np.uint8).data if array.size else b"")


def _short(digest: Any) -> str:
    return str(digest.hexdigest()[:16])


def _abridged(told: str) -> str:
    """It, or of a long one the beginning and a digest of all."""
    return told if len(told) <= LONG else f"{told[:LONG]}… {digest(told)}"


def _told(thing: Any, within: tuple[int, ...] = ()) -> str:
    """A sampler or a scheduler, or what it holds, by its type and its spec, however deep."""
    if id(thing) in within:
        return "..."
    if isinstance(thing, list | dict):
        with suppress(TypeError, ValueError):  # of plain values; the fast way, since a list of points may be long
            told = json.dumps(thing)
            if json.loads(told) == thing:  # which keys that are no strings are not
                return told
    tell = partial(_told, within=(*within, id(thing)))
    if isinstance(thing, Mapping):
        return "{" + ", ".join(f"{tell(key)}: {tell(value)}" for key, value in thing.items()) + "}"
    if isinstance(thing, list | tuple):
        return f"[{', '.join(map(tell, thing))}]"
    if isinstance(thing, set | frozenset):
        return f"{{{', '.join(sorted(map(tell, thing)))}}}"
    if isinstance(thing, partial):
        return f"{tell(thing.func)}({tell(thing.args)}, {tell(thing.keywords)})"
    if isinstance(thing, FunctionType):
        code = digest(without_addresses(repr((thing.__code__.co_code, thing.__code__.co_consts))))
        return f"{thing.__qualname__}({tell([thing.__defaults__, *_cells(thing)])} {code})"
    names = set(getattr(thing, "__dict__", {}))
    if is_dataclass(thing):  # what does not decide whether two are equal decides no bit
        names -= {each.name for each in fields(thing) if not each.compare}
    for kind in type(thing).__mro__:
        slots = getattr(kind, "__slots__", ())
        for name in [slots] if isinstance(slots, str) else slots:
            private = name.startswith("__") and not name.endswith("__")
            names.add(f"_{kind.__name__.lstrip('_')}{name}" if private else name)
    if isinstance(thing, type) or not names:
        return without_addresses(show(thing) if isinstance(thing, float) else repr(thing))
    values = ", ".join(f"{name}={tell(getattr(thing, name))}" for name in sorted(names) if hasattr(thing, name))
    return f"{type(thing).__name__}({values})"


def _cells(function: FunctionType) -> list[Any]:
    """What a function closes over."""
    return [cell.cell_contents for cell in function.__closure__ or ()]
