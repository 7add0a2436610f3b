"""Plans a sweep for devices that are not there: how many lanes fit, what a step moves, and how fast it is at best.

All of it is read from programs that XLA compiles for the described devices. The time is that of a roofline (Williams,
Waterman, Patterson 2009, doi:10.1145/1498765.1498785).
"""

import time
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import jax

from hpjax.core.errors import InputError, ProgramError
from hpjax.core.format import size
from hpjax.core.user_code import first_line
from hpjax.engine.compile import FUNCTIONS
from hpjax.engine.device_errors import OUT_OF_MEMORY
from hpjax.engine.hlo import CompiledText
from hpjax.engine.targets import FIELD, Target, described
from hpjax.sweep.planning.arrange import capacity_of, most_trials, rearranged, with_choice
from hpjax.sweep.planning.footprint import Footprint, Memory
from hpjax.sweep.planning.plan import Group, Plan
from hpjax.sweep.planning.planner import plan_first_round
from hpjax.sweep.planning.programs import GroupPrograms, mesh_of
from hpjax.sweep.planning.room import has_room, wider_spans
from hpjax.sweep.planning.width import ACCELERATOR_MOST, balanced
from hpjax.sweep.spec import SweepSpec, of_group

# The search for the widest width ends where what fits and what does not differ by less.
CLOSE = 1.1
# From one width that is compiled to the next narrower one.
NARROWER = 4

# Returns what a group takes at a width, or why that does not fit, as a clause.
Compiling = Callable[[int], Footprint | str]


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
      InputError, ProgramError: a group does not fit, at the width that is asked for or at any.
    """
    programs = GroupPrograms(spec, mesh_of(spec), (None, None))
    found, widest, chosen = [], [], dict[int, tuple[int, str]]()
    for first, *others in plan.programs:
        compiling = partial(_compiled, spec, programs, plan, plan.groups[first], target)
        asked = of_group(spec.width, first)
        if asked is None:
            capacity = capacity_of(spec, plan)
            share = partial(balanced, lanes=capacity.lanes_together(most_trials(plan, first)), spans=capacity.spans)
            fits = widest_that_fits(compiling, share(ACCELERATOR_MOST), target.chip.limit)
            if isinstance(fits, str):
                raise ProgramError(_at_no_width(spec, plan, plan.groups[first], target, fits))
            footprint = fastest(compiling, share, fits, target)
        elif isinstance(fits := compiling(asked), str):
            if asked == 1:
                raise ProgramError(_at_no_width(spec, plan, plan.groups[first], target, fits))
            remedy = "Write a smaller width, or leave it out, and the plan finds the widest that fits."
            raise InputError("Sweep.width", asked, f"does not fit on {target.name}, where {fits}", remedy)
        else:
            footprint = fits
        found.append(footprint)
        widest.append(fits.width)
        for number in (first, *others):
            chosen[number] = of_group(spec.width, number) or footprint.width, plan.arrangements[first].kernels
    plan = rearranged(spec, plan, chosen)
    return replace(plan, target=target, footprints=tuple(found), widest=tuple(widest))


def widest_that_fits(compiling: Compiling, most: int, limit: int) -> Footprint | str:
    """Returns what a group takes at the widest width that fits, by bisection; or why the width 1 does not.

    Args:
      compiling: compiles the group.
      most: the widest width that is of use.
      limit: the bytes of memory of a device.
    """
    fits, fails, width = None, most + 1, most
    while True:
        found = compiling(width)
        before = fits
        if isinstance(found, Footprint):
            fits = found
        elif width == 1:
            return found
        else:
            fails = width
        if fits is None:
            width = max(fails // NARROWER, 1)
            continue
        if CLOSE * fits.width >= fails - 1:
            return fits
        # As many as have room if all take as much as those of the first that fits; then halfway.
        a_lane = (fits.memory.state + fits.memory.temporaries) / fits.width
        guess = int(0.97 * (limit - fits.memory.data) / a_lane) if a_lane and before is None else 0
        width = guess if fits.width < guess < fails else (fits.width + fails) // 2


def fastest(compiling: Compiling, share: Callable[[int], int], widest: Footprint, target: Target) -> Footprint:
    """Returns what a group takes at the width that is fastest at best.

    On a TPU narrower widths are compiled as long as a step waits for the large memory: at one of them the lanes begin
    to stay on the chip, which shows at once and not by degrees.

    Args:
      compiling: compiles the group.
      share: the width that has as many chunks as the one that is given, and fewer empty slots.
      widest: what it takes at the widest width that fits.
      target: the devices.
    """
    found: list[Footprint] = []
    following: Footprint | str = widest if share(widest.width) == widest.width else compiling(share(widest.width))
    while isinstance(following, Footprint):
        found.append(following)
        if target.chip.platform != "tpu" or following.bound(target.chip) != "memory" or following.width < NARROWER:
            break
        following = compiling(share(following.width // NARROWER))
    return min(found, key=lambda each: each.seconds(target.chip))


def _compiled(
    spec: SweepSpec, programs: GroupPrograms, plan: Plan, group: Group, target: Target, width: int
) -> Footprint | str:
    """Returns what a group takes at a width, one chunk a device; where that does not fit, why not, as a clause."""
    own = with_choice(spec, plan, group.number, width, plan.arrangements[group.number].kernels)
    arrangements = list(own.arrangements)
    arrangements[group.number] = replace(arrangements[group.number], chunks=1)
    own = replace(own, arrangements=tuple(arrangements))
    h = programs.hparams(own, group, [own.points[group.trials[0]]])
    compiled, begun = programs.compile(own, group.number, h), time.perf_counter()
    each: dict[str, Any] = {}
    try:
        for name in FUNCTIONS:
            each[name] = compiled.lower(name).traced.compile()
    except jax.errors.JaxRuntimeError as error:
        said = first_line(error)
        if OUT_OF_MEMORY in str(error):
            return f"the compiler says: {said}"
        raise _other_error(group, target, said) from None
    seconds = time.perf_counter() - begun
    needed = [Memory.of(program) for program in each.values()]
    memory = max(needed, key=sum)
    if sum(memory) > target.chip.limit:
        return f"a program of it takes {size(sum(memory))}, {size(memory.temporaries)} of them for what it computes"
    texts = {name: CompiledText(program.as_text()) for name, program in each.items()}
    try:
        step = texts["advance"].step
    except ValueError as error:
        versions = f"jax {jax.__version__}, whose programs hpjax cannot read: {error}"
        raise ProgramError(f"group {group.number} is compiled by {versions}. Install jax 0.10.2 to 0.12.") from None
    collectives = Counter[str]()
    for text in texts.values():
        collectives.update(text.whole.collectives)
    work, spanned = plan.trained(group.number).step, plan.devices_per_lane
    flops = work.narrow / spanned, (work.flops - work.narrow) / spanned
    return Footprint(group.number, width, memory, step, collectives, flops, seconds)


def _other_error(group: Group, target: Target, said: str) -> Exception:
    """Returns the error for what a compiler says that is not about memory."""
    if "ptxas" in said:
        allowed = f"needs ptxas, NVIDIA's assembler: {said}"
        return InputError(FIELD, target.name, allowed, "Write pip install nvidia-cuda-nvcc.")
    alike = "Plan it for another target to see whether the program is the reason."
    return ProgramError(f"group {group.number} does not compile for {target.name}: {said}. {alike}")


def _enough_devices(spec: SweepSpec, plan: Plan, group: Group, target: Target) -> int | None:
    """Returns how many devices a lane of a group has to span so that it fits, None if all are too few."""
    for number in wider_spans(spec, plan):
        if has_room(plan, group.number, number, target.chip.limit):
            wider = replace(spec, devices_per_lane=number, partition="fsdp", spread="shard_map")
            try:
                programs, placed = GroupPrograms(wider, mesh_of(wider), (None, None)), plan_first_round(wider)
                fits = _compiled(wider, programs, placed, placed.groups[group.number], target, 1)
            except (InputError, ProgramError):  # the error that is raised is about one device
                return None
            if isinstance(fits, Footprint):
                return number
    return None


def _at_no_width(spec: SweepSpec, plan: Plan, group: Group, target: Target, reason: str) -> str:
    """Returns the message of the error that a group fits at no width."""
    lane, enough = plan.lane_bytes(group.number), _enough_devices(spec, plan, group, target)
    span = "" if enough is None else f'devices_per_lane={enough}, partition="fsdp"; or '
    return (
        f"group {group.number} fits at no width on {target.name}, where a device has {size(target.chip.limit)} for "
        f"arrays: at the width 1 {size(lane)} are the state of the lane, {size(plan.data_bytes)} the data, and "
        f"{reason}. Write {span}a smaller model or batch, accumulate gradients with microbatch=, or name a chip with "
        "more memory."
    )
