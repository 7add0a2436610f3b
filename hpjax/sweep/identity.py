"""The identity of a sweep: what decides the bits of a run, as its manifest records it."""

import hashlib
import inspect
import json
import sys
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import fields, is_dataclass
from functools import partial
from types import FunctionType
from typing import Any, NamedTuple
from weakref import WeakKeyDictionary

import jax
import numpy as np
from msgspec.structs import replace

from hpjax.core.choice import Choice
from hpjax.core.code_digest import attributes, code_digest, is_own_class
from hpjax.core.errors import InputError, RunError
from hpjax.core.format import show
from hpjax.core.hashing import digest, without_addresses
from hpjax.core.hparams import Hparams
from hpjax.core.program import Program
from hpjax.core.scalars import as_python
from hpjax.data.stream import Stream, first_batch_of
from hpjax.engine.callbacks import kept_functions
from hpjax.engine.machine import installed
from hpjax.engine.probe import trace_lifecycle
from hpjax.engine.settings import deciding_settings, xla_flags
from hpjax.engine.shapes import unwrap_keys
from hpjax.results.store.final_states import check_readable as check_states
from hpjax.results.store.manifest import FORMAT, Devices, Manifest, SweepRecord, origin
from hpjax.results.store.manifest import check_readable as check_manifest
from hpjax.results.store.validation import RESTORE, RESTORE_FILE
from hpjax.sweep.planning.grouping import tracer_of
from hpjax.sweep.planning.plan import Plan
from hpjax.sweep.spec import SweepSpec

# Longer descriptions of samplers are cut to so many characters and a digest.
LONG = 2000
PACKAGES = ("hpjax", "jax", "jaxlib", "flax", "optax", "numpy", "scipy")


class Digests(NamedTuple):
    """The digests of a sweep's code and data; they and ``description`` decide the bits of the sweep.

    Attributes:
      code: of the program of all groups, as JAX traces it, and of the functions that it calls on the host.
      data: of each split, by its name; empty where the program has no data.
    """

    code: str
    data: dict[str, str]


def manifest(spec: SweepSpec, plan: Plan, recorded: bool) -> Manifest:
    """Returns the manifest of a run.

    Args:
      spec: the sweep.
      plan: its first round.
      recorded: whether the run is recorded in a directory; only then code and data are digested, which takes long.
    """
    sweep, begun = description(spec, plan), origin()
    return Manifest(
        format=FORMAT,
        extended=0,
        extended_by=(),
        created=begun.created,
        command=begun.command,
        versions={
            "python": sys.version.split()[0],
            **{name: installed(name) for name in PACKAGES},
            "XLA_FLAGS": xla_flags(),
        },
        devices=Devices(*plan.devices),
        sweep=replace(sweep, **digests(spec, plan)._asdict()) if recorded else sweep,
        plan=tuple(str(plan).splitlines()),
    )


def check_recordable(spec: SweepSpec, plan: Plan) -> None:
    """Raises ``InputError`` unless what a run of this plan writes can be read again."""
    try:
        check_manifest(manifest(spec, plan, recorded=False))
        for shapes in plan.shapes:
            check_states(shapes.names)
    except RunError as error:
        why = str(error).removesuffix(RESTORE_FILE).removesuffix(RESTORE).rstrip(" .")
        allowed = f"would write what could not be read again: {why}"
        raise InputError("Sweep.run", "its record", allowed, "Rename what is named there.") from None


def description(spec: SweepSpec, plan: Plan) -> SweepRecord:
    """Returns what the sweep is, without the digests of code and data, which take long."""
    branches, recorded, objective = spec.space.branches, spec.space.recorded, spec.objective
    return SweepRecord(
        space={f"alternative {i}": {n: str(d) for n, d in b.items()} for i, b in enumerate(branches)},
        names=tuple(spec.space.names),
        ranges=tuple({n: r for n, d in b.items() if (r := d.range()) is not None} for b in branches),
        options=tuple(
            {n: tuple(show(recorded({n: o})[n]) for o in d.options) for n, d in b.items() if isinstance(d, Choice)}
            for b in branches
        ),
        scales={name: spec.space.scale(name) for name in spec.space.names},
        metrics=tuple(sorted({name for shapes in plan.shapes for name in shapes.metrics})),
        trials=plan.trials,
        shard=None if plan.shard is None else (str(plan.shard),),
        rounds=plan.rounds,
        replicates=plan.replicates,
        folds=plan.folds,
        sampler=_abridged(_described(spec.sampler)),
        points=digest(json.dumps(list(map(recorded, plan.points)))),
        scheduler=None if spec.scheduler is None else _described(spec.scheduler),
        objective=(objective.metric, objective.direction, objective.quantile),
        seed=spec.seed,
        randomness=spec.randomness,
        width=plan.widths,
        kernels=plan.kernels,
        devices_per_lane=plan.devices_per_lane,
        partition=_partition(spec, plan),
        padded=tuple(padding.groups for padding in plan.paddings),
        steps=digest(repr(plan.lengths)) if len(set(plan.lengths)) > 1 else plan.steps[0],
        eval_every=tuple(sorted({g.eval_every for g in plan.groups})),
        program={show(name): show(value) for name, value in spec.program.describe.items()},
        settings=deciding_settings(),
        study=spec.study,
    )


def _partition(spec: SweepSpec, plan: Plan) -> str | None:
    """Returns how the devices of a lane share its state; of a user's function a digest of what it said."""
    if plan.devices_per_lane == 1:
        return None
    said = digest(repr(plan.partitions))
    if callable(spec.partition):
        return f"a function, {said}"
    return spec.partition or (f"names, {said}" if any(map(any, plan.partitions)) else None)


def digests(spec: SweepSpec, plan: Plan) -> Digests:
    """Returns the digests of the code and the data of a sweep, which takes long."""
    tracing = tracer_of(spec)
    traced = [v.name for v in plan.verdicts if v.traced]
    code = hashlib.sha256()
    for group in plan.groups:
        h = tracing.hparams(plan.points[group.trials[0]], traced)
        program = jax.make_jaxpr(_life(spec.program))(h, tracing.train, tracing.valid)
        text = without_addresses(str(program))
        code.update(text.encode())
        code.update(_kept_code(spec.program, text, program.jaxpr).encode())
        for constant in program.consts:
            _hash_array(code, constant)
    data = spec.program.data
    splits = {} if data is None else {name: getattr(data, name) for name in ("train", "valid", "test")}
    of_data = {name: hashlib.sha256() for name in splits}
    for name, split in splits.items():
        if isinstance(split, Stream):  # a stream has no end: its name and its first batch stand for it
            of_data[name].update(
                f"stream {split.name} {_code_of(split, 'factory', *_code_alone(split.factory))}".encode()
            )
        for array in jax.tree.leaves(first_batch_of(split)):
            _hash_array(of_data[name], array)
    return Digests(_short_digest(code), {name: _short_digest(hashed) for name, hashed in of_data.items()})


def _life(program: Program) -> Callable[[Hparams, Any, Any], Any]:
    """Returns a function from initialization to finish, whose trace is hashed in place of the user's code."""

    def life(h: Hparams, train: Any, valid: Any) -> Any:
        found = trace_lifecycle(program, h, train, valid)
        return found.train, found.inspected, found.valid, found.done, found.finished

    return life


# The digests of functions by the program or stream that holds them. What they close over may change as they are called,
# such as a list that counts the calls: within a process they stay what they were when it first asked.
_digested: WeakKeyDictionary[Any, dict[str, str]] = WeakKeyDictionary()


def _code_of(holder: Any, key: str, *functions: Any) -> str:
    """Returns the digest of functions that a program or a stream holds, as it was when it was first asked for."""
    known = _digested.setdefault(holder, {})
    if key not in known:
        known[key] = code_digest(*functions)
    return known[key]


def _code_alone(function: Any) -> list[Any]:
    """Returns the code of a function and the plain values that it is given, or the class of a callable object.

    Other objects do not count: a loader may count what it has read.
    """
    given: list[Any] = []
    while isinstance(function, partial):
        given += [*function.args, *function.keywords.values()]
        function = function.func
    function = getattr(function, "__func__", function)
    if not isinstance(function, FunctionType):
        return [type(function)]
    given += [*(function.__defaults__ or ()), *inspect.getclosurevars(function).nonlocals.values()]
    return [function.__code__, *(each for each in given if isinstance(each, bool | int | float | str | bytes))]


def _kept_code(program: Program, text: str, jaxpr: Any) -> str:
    """Returns the digest of the functions that a trace of a program keeps; empty where it keeps none."""
    functions = list(kept_functions(jaxpr))
    return _code_of(program, digest(text), *functions) if functions else ""


def _hash_array(hasher: Any, array: Any) -> None:
    """Adds the shape, the dtype and the bytes of an array to a hash of ``hashlib``."""
    array = np.ascontiguousarray(unwrap_keys([array])[0] if isinstance(array, jax.Array) else array)
    hasher.update(f"{array.shape}{array.dtype}".encode())
    hasher.update(array.view(np.uint8).data if array.size else b"")


def _short_digest(hasher: Any) -> str:
    """Returns the first 16 hexadecimal digits of a hash of ``hashlib``."""
    return str(hasher.hexdigest()[:16])


def _abridged(text: str) -> str:
    """Returns a description, or of a long one the beginning and a digest of the whole."""
    return text if len(text) <= LONG else f"{text[:LONG]}… {digest(text)}"


def _described(thing: Any, within: tuple[int, ...] = ()) -> str:
    """Returns a sampler or a scheduler in words: types and settings, those of what it holds among them.

    Args:
      thing: what to describe.
      within: ids of the objects that hold it, which end a circle.
    """
    thing = as_python(thing)  # NumPy's 3 is described as Python's
    if id(thing) in within:
        return "..."
    if isinstance(thing, list | dict):
        with suppress(TypeError, ValueError):  # plain values in one call, since a list of points may be long
            text = json.dumps(thing, default=_scalar)
            if json.loads(text) == thing:  # JSON turns keys that are no strings into some
                return text
    describe = partial(_described, within=(*within, id(thing)))
    if isinstance(thing, Mapping):
        return "{" + ", ".join(f"{describe(key)}: {describe(value)}" for key, value in thing.items()) + "}"
    if isinstance(thing, list | tuple):
        return f"[{', '.join(map(describe, thing))}]"
    if isinstance(thing, set | frozenset):
        return f"{{{', '.join(sorted(map(describe, thing)))}}}"
    if isinstance(thing, partial):
        return f"{describe(thing.func)}({describe(thing.args)}, {describe(thing.keywords)})"
    if isinstance(thing, FunctionType):
        return f"{thing.__qualname__}({code_digest(thing)})"
    held = dict(attributes(thing))
    if is_dataclass(thing):  # a field that does not count for equality decides no bit
        held = {name: value for name, value in held.items() if name not in _ignored(thing)}
    kind = thing if isinstance(thing, type) else type(thing)
    code = f" {code_digest(kind)}" if is_own_class(kind) else ""
    if isinstance(thing, type) or not (held or code):
        return without_addresses(show(thing) if isinstance(thing, float) else repr(thing)) + code
    values = ", ".join(f"{name}={describe(value)}" for name, value in held.items())
    return f"{type(thing).__name__}({values}){code}"


def _ignored(thing: Any) -> set[str]:
    """Returns the fields of a dataclass that do not count for equality."""
    return {each.name for each in fields(thing) if not each.compare}


def _scalar(value: Any) -> Any:
    """Returns a scalar of NumPy or JAX as a Python number; raises ``TypeError`` for anything else, as JSON does."""
    found = as_python(value)
    if found is value:
        raise TypeError(type(value))
    return found
