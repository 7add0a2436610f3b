"""Whether a lane has room on its devices, by the sizes of its arrays, and how many devices would do where it has not.

Pure.
"""

from collections.abc import Iterator
from itertools import chain

from hpjax.core.errors import ProgramError
from hpjax.core.format import size
from hpjax.engine.partition import FSDP, device_bytes, state_specs
from hpjax.sweep.planning.plan import Plan
from hpjax.sweep.spec import SweepSpec

# Gradients and activations take about as much as the state of a lane, as in ``Plan.memory``.
WITH_GRADIENTS = 2
# More devices a lane than these are not looked at.
MOST = 2**12


def check_room(spec: SweepSpec, plan: Plan, memory: int | None) -> None:
    """Raises ``ProgramError`` where the state of a lane and the data are more than a device has memory for.

    Args:
      spec: the sweep.
      plan: its plan.
      memory: bytes of memory of a device, None where unknown.
    """
    for g in plan.own_groups:
        lane = plan.lane_bytes(g.number)
        if memory is not None and lane + plan.data_bytes > memory:
            raise ProgramError(
                f"group {g.number} does not fit: of each device's {size(memory)} the state of one lane takes "
                f"{size(lane)} and the data {size(plan.data_bytes)}. {_remedy(spec, plan, g.number, memory)}"
            )


def hints_of_room(spec: SweepSpec, plan: Plan, memory: int | None) -> Iterator[str]:
    """Yields for each group whose state fits on a device, but likely not what is computed of it, what would do."""
    for g in plan.own_groups:
        lane = plan.lane_bytes(g.number)
        if memory is not None and WITH_GRADIENTS * lane + plan.data_bytes > memory:
            yield (
                f"group {g.number} likely does not fit: of each device's {size(memory)} the state of one lane takes "
                f"{size(lane)}, its gradients and activations about as much, and the data {size(plan.data_bytes)}. "
                f"{_remedy(spec, plan, g.number, memory)}"
            )


def wider_spans(spec: SweepSpec, plan: Plan) -> list[int]:
    """Returns how many devices a lane may span with ``partition="fsdp"`` where it does not fit, ascending."""
    least = max(plan.devices_per_lane + (spec.partition == FSDP), 2)
    return [number for number in range(least, plan.devices[0] + 1) if plan.devices[0] % number == 0]


def has_room(plan: Plan, group: int, number: int, memory: int, times: int = 1) -> bool:
    """Returns whether a device has memory for the data and for so many times a lane's state.

    Args:
      plan: the plan.
      group: the number of the group.
      number: how many devices share the lane with ``partition="fsdp"``.
      memory: bytes of memory of a device.
      times: how many times the state.
    """
    shapes = plan.trained(group)
    return times * device_bytes(state_specs(FSDP, shapes, number), shapes, number) + plan.data_bytes <= memory


def _remedy(spec: SweepSpec, plan: Plan, group: int, memory: int) -> str:
    """Returns what to type for a group whose lanes do not fit."""
    there = wider_spans(spec, plan)
    more = (2**n for n in range(1, MOST.bit_length()) if 2**n > plan.devices[0])
    enough = next((n for n in chain(there, more) if has_room(plan, group, n, memory, WITH_GRADIENTS)), None)
    elsewhere = "" if enough in there else f" on {enough} devices"
    span = "" if enough is None else f'devices_per_lane={enough}, partition="fsdp"{elsewhere}; or '
    stream = "" if plan.stream or not plan.data_bytes else ", or give the data batch by batch: hpx.data.stream"
    return f"Write {span}a smaller model or batch{stream}."
