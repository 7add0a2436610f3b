"""A sweep as a run directory records it: with its widths and, of one that is extended, with its rounds first."""

from dataclasses import replace
from typing import Any

from hpjax.core.errors import RunError
from hpjax.results.store.manifest import Manifest
from hpjax.sweep.planning.arrange import rearranged
from hpjax.sweep.planning.padding import padded_as
from hpjax.sweep.planning.plan import Plan
from hpjax.sweep.planning.planner import plan_first_round
from hpjax.sweep.spec import SweepSpec


def as_recorded(
    spec: SweepSpec, traced: Plan, there: Manifest, extending: bool = False, exactly: bool = False
) -> tuple[SweepSpec, Plan]:
    """Returns a sweep at the width of a recorded one and, of one that is extended, with its rounds first.

    Args:
      spec: the sweep.
      traced: the plan of its first round.
      there: the manifest of the recorded one.
      extending: whether more trials are to be added.
      exactly: whether to take the width that is recorded although this sweep has one of its own.

    Returns:
      The sweep, and the plan of its first round; those of another sweep where the widths cannot be, which
      ``open_record`` refuses.
    """

    def arranged(spec: SweepSpec, traced: Plan) -> Plan:
        return rearranged(spec, padded_as(spec, traced, there.sweep.padded))

    plan, given = arranged(spec, traced), spec
    width, kernels, rounds = there.sweep.width, there.sweep.kernels, there.sweep.rounds
    more = plan.trials - sum(rounds)
    if rounds != plan.rounds and ((there.extended and more == 0) or (extending and more >= 0)):
        if spec.shard is not None:
            raise RunError("a shard cannot have more trials. Merge all shards, and extend what is merged.")
        spec = replace(spec, rounds=(*rounds, more) if more else rounds)
        plan = arranged(spec, plan_first_round(spec))
    changes: dict[str, Any] = {}
    if len(width) == len(plan.widths):
        if (exactly or given.width is None) and width != plan.widths:
            changes["width"] = width
        if (exactly or given.kernels is None) and kernels != plan.kernels:
            changes["kernels"] = kernels
    if changes:
        spec = replace(spec, **changes)
        plan = arranged(spec, plan_first_round(spec))
    # One plan from here on: another process may measure widths meanwhile, which must not decide this run's.
    return spec, plan
