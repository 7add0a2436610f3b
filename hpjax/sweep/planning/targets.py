"""Plans a sweep for devices that are not there: how many lanes fit, what a step moves, and how fast it is at best.

All of it is read from programs that XLA compiles for the described devices. The time is that of a roofline (Williams,
Waterman, Patterson 2009, doi:10.1145/1498765.1498785).
"""

import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial

import jax

from hpjax.core.errors import InputError, ProgramError
from hpjax.core.format import size
from hpjax.core.user_code import first_line
from hpjax.engine import sharding
from hpjax.engine.device_errors import OUT_OF_MEMORY
from hpjax.engine.hlo import CompiledText
from hpjax.engine.targets import FIELD, Target, described
from hpjax.sweep.planning.arrange import capacity_of, with_choice
from hpjax.sweep.planning.footprint import Footprint, Memory
from hpjax.sweep.planning.plan import Group, Plan
from hpjax.sweep.planning.programs import GroupPrograms
from hpjax.sweep.planning.width import ACCELERATOR_MOST, balanced
from hpjax.sweep.spec import SweepSpec, of_group

# The search for the widest width ends where what fits and what does not differ by less.
CLOSE = 1.1
# A width so many times narrower is taken where a step of it takes a smaller share than this of the time, at best.
NARROWER, FASTER = 4, 0.95


def asked_target(name: str | None, count: int | None, measure: bool) -> Target | None:
    """Returns the devices that a plan is asked for, None for those that are there.

    Raises:
      InputError: they cannot be planned for, or not together with the other arguments.
    """
    if name is None:
        if count is not None:
            raise InputError("Sweep.plan.count", count, "needs a target", 'Write target="h100", or leave count out.')
        return None
    if measure:
        allowed = "cannot go with a target, since devices that are not there run nothing"
        raise InputError("Sweep.plan.measure", measure, allowed, "Leave measure out, or target.")
    return described(name, count)


def planned_for(spec: SweepSpec, plan: Plan, target: Target) -> Plan:
    """Returns a plan for devices that are not there, with what its programs take of them.

    Its widths are those that the sweep asks for, or those that are fastest at best: a width that fits may be slower
    than a narrower one, whose lanes stay on the chip from step to step.

    Args:
      spec: the sweep, on the devices of the target.
      plan: its plan.
      target: the devices.

    Raises:
      ProgramError: a group fits at no width.
    """
    programs = GroupPrograms(spec, sharding.mesh(target.devices), (None, None))
    found, widest = [], []
    for first, *others in plan.programs:
        compiled = partial(_at, spec, programs, plan, plan.groups[first], target)
        asked = of_group(spec.width, first)
        fits = _widest(compiled, spec, plan, plan.groups[first], target, asked)
        footprint = _fastest(compiled, fits, target) if asked is None else fits
        found.append(footprint)
        widest.append(fits.width)
        for number in (first, *others):
            plan = with_choice(spec, plan, number, footprint.width, plan.arrangements[first].kernels)
    return replace(plan, target=target, footprints=tuple(found), widest=tuple(widest))


def _widest(
    compiled: Callable[[int], Footprint | str],
    spec: SweepSpec,
    plan: Plan,
    group: Group,
    target: Target,
    asked: int | None,
) -> Footprint:
    """Returns what a group takes at the widest width that fits, found by bisection; or at the width ``asked`` for."""
    capacity = capacity_of(spec, plan)
    most = balanced(ACCELERATOR_MOST, capacity.lanes_together(len(group.trials)), capacity.devices)
    if asked is not None:
        found = compiled(asked)
        if isinstance(found, str):
            allowed = f"does not fit on {target.name}: {found}"
            raise InputError("Sweep.width", asked, allowed, "Leave width out, and the plan finds the widest that fits.")
        return found
    fits, fails, width, reason = None, most + 1, most, ""
    while fits is None or CLOSE * fits.width < fails - 1:
        found = compiled(width)
        if isinstance(found, Footprint):
            fits = found
        else:
            fails, reason = width, found
        if fails == 1:
            raise ProgramError(_at_no_width(plan, group, target, reason))
        width = _next(fits, fails, target.chip.limit)
    return fits


def _fastest(compiled: Callable[[int], Footprint | str], widest: Footprint, target: Target) -> Footprint:
    """Returns what a group takes at the width that is fastest at best, from the widest one down while that gains."""
    best = widest
    while best.bound(target.chip) == "memory" and best.width >= NARROWER:
        found = compiled(best.width // NARROWER)
        if isinstance(found, str) or found.seconds(target.chip) > FASTER * best.seconds(target.chip):
            break
        best = found
    return best


def _next(fits: Footprint | None, fails: int, limit: int) -> int:
    """Returns the width to try next, between one that fits and one that does not."""
    if fits is None:
        return max(fails // 4, 1)
    per_lane = (fits.memory.state + fits.memory.temporaries) / fits.width
    guess = int(0.97 * (limit - fits.memory.data) / per_lane)
    return guess if fits.width < guess < fails else (fits.width + fails) // 2


def _at(
    spec: SweepSpec, programs: GroupPrograms, plan: Plan, group: Group, target: Target, width: int
) -> Footprint | str:
    """Returns what a group takes at a width; where that does not fit, why not, as a clause."""
    own = with_choice(spec, plan, group.number, width, plan.arrangements[group.number].kernels)
    arrangements = list(own.arrangements)
    arrangements[group.number] = replace(arrangements[group.number], chunks=1)
    own = replace(own, arrangements=tuple(arrangements))
    h = programs.hparams(own, group, [own.points[group.trials[0]]])
    traced = programs.compile(own, group.number, h).lower("advance").traced
    begun = time.perf_counter()
    try:
        compiled = traced.compile()
    except jax.errors.JaxRuntimeError as error:
        said = first_line(error)
        if OUT_OF_MEMORY in str(error):
            return f"the compiler says: {said}"
        if "ptxas" in str(error):
            allowed = f"needs ptxas, NVIDIA's assembler: {said}"
            raise InputError(FIELD, target.name, allowed, "Write pip install nvidia-cuda-nvcc.") from None
        raise ProgramError(f"group {group.number} does not compile for {target.name}: {said}") from None
    seconds, memory = time.perf_counter() - begun, Memory.of(compiled)
    if sum(memory) > target.chip.limit:
        return f"its program takes {size(sum(memory))}, {size(memory.temporaries)} of them for what it computes"
    step = CompiledText(compiled.as_text()).step
    return Footprint(group.number, width, memory, step, plan.trained(group.number).step.flops, seconds)


def _at_no_width(plan: Plan, group: Group, target: Target, reason: str) -> str:
    """Returns the message of the error that a group fits at no width."""
    lane = plan.trained(group.number).lane_bytes
    return (
        f"group {group.number} fits at no width on {target.name}, where a device has {size(target.chip.limit)} for "
        f"arrays: at the width 1 {size(lane)} are the state of the lane, {size(plan.data_bytes)} the data, and "
        f"{reason}. Write a smaller model or batch, accumulate gradients with microbatch=, or name a chip with more "
        "memory."
    )
