"""The report of a plan on lanes that span several devices: what of their states is split, and what they exchange."""

import re
from typing import TYPE_CHECKING

from hpjax.core import format as text
from hpjax.engine.exchanges import Exchanges
from hpjax.engine.partition import Exchange
from hpjax.engine.state_tree import KeyPath

if TYPE_CHECKING:
    from hpjax.sweep.planning.plan import Plan

# The report names so many kinds of split arrays of a group at most.
KINDS = 8


def span_lines(plan: "Plan") -> list[str]:
    """Returns the lines on the devices that each lane spans, where these are several."""
    if plan.devices_per_lane == 1:
        return []
    mesh = f"{plan.spans} × {plan.devices_per_lane} devices"
    found = f"each lane spans {plan.devices_per_lane} devices, which divide its batches: a mesh of {mesh}, lanes × data"
    lines = [(g.number, [*_split(plan, g.number), *_exchanged(plan, g.number)]) for g in plan.groups]
    if all(own == lines[0][1] for _, own in lines):
        return [found, *lines[0][1]]
    told = ((line if line.startswith(" ") else f"group {number}: {line}") for number, own in lines for line in own)
    return [found, *told]


def exchanged(found: Exchanges) -> str:
    """Returns what the devices of a chunk of lanes exchange by a compiled program, as a clause."""
    return (
        f"in a step the devices of a chunk of lanes exchange arrays {text.count(found.times, 'time')}, "
        f"{text.size(found.bytes)} in all"
    )


def _split(plan: "Plan", group: int) -> list[str]:
    """Returns the lines on the arrays of a lane's state that are split."""
    specs, shapes = plan.partitions[group], plan.shapes[group]
    own, whole = text.size(plan.lane_bytes(group)), text.size(shapes.lane_bytes)
    split = f"{sum(map(bool, specs))} of {len(specs)} arrays of a lane's state are split"
    # What an optimizer keeps of a parameter has its path behind others, and is named like it.
    known = {path[1:]: path for path, trained in zip(shapes.names, shapes.trained, strict=True) if trained}
    kinds: dict[str, int] = {}
    for path, spec in zip(shapes.names, specs, strict=True):
        for axis in [axis for axis, name in enumerate(spec) if name is not None]:
            kind = f"{_pattern(_parameter(path, known)) or 'the state'} along axis {axis}"
            kinds[kind] = kinds.get(kind, 0) + 1
    named = [f"  {kind}: {text.count(number, 'array')}" for kind, number in kinds.items()]
    more = [f"  and {len(named) - KINDS} others"] if len(named) > KINDS else []
    return [f"{split}, {own} of {whole} are on each device", *named[:KINDS], *more]


def _parameter(path: KeyPath, known: dict[KeyPath, KeyPath]) -> KeyPath:
    """Returns the path of the parameter that an array of the state belongs to, or its own."""
    ends = (path[begin:] for begin in range(1, len(path)))
    return next((known[end] for end in ends if end in known), path)


def _pattern(path: KeyPath) -> str:
    """Returns a path with ``*`` in place of numbers, so that those of layers of a kind are one."""
    return re.sub(r"\d+", "*", "/".join(map(str, path)))


def _exchanged(plan: "Plan", group: int) -> list[str]:
    """Returns the line on what the devices of a lane exchange in a step, for plans for devices that are there."""
    if plan.target is not None:
        return []
    counted = plan.exchanges[group] if plan.exchanges else None
    if counted is not None:
        return [exchanged(counted)]
    remedy = "" if plan.exchanges else "; plan(measure=True) compiles and counts"
    if not plan.gathers and any(plan.partitions[group]):
        return [f"what they exchange in a step XLA decides, since a function splits arrays{remedy}"]
    reduced, gathered = Exchange.of(plan.partitions[group], plan.shapes[group])
    weights = f", {text.size(gathered)} of split weights (all-gather)" if gathered else ""
    return [
        f"in a step they exchange about {text.size(reduced + gathered)} a lane, by the sizes of its parameters: "
        f"{text.size(reduced)} of gradients (all-reduce){weights}{remedy}"
    ]
