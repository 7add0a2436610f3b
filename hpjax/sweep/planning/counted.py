"""Counts what the devices of a lane exchange, by compiling the programs of a plan."""

from contextlib import suppress
from dataclasses import replace

from hpjax.engine.exchanges import Exchanges
from hpjax.sweep.planning.plan import Plan
from hpjax.sweep.planning.programs import GroupPrograms, mesh_of
from hpjax.sweep.spec import SweepSpec


def with_exchanges(spec: SweepSpec, plan: Plan) -> Plan:
    """Returns a plan that knows what each program exchanges in a step, where lanes span several devices."""
    if plan.devices_per_lane == 1:
        return plan
    programs, compiled = GroupPrograms(spec, mesh_of(spec), (None, None)), {}
    for group in plan.own_groups:
        h = programs.hparams(plan, group, [plan.points[group.trials[0]]])
        compiled[group.number] = programs.compile(plan, group.number, h)
        compiled[group.number].prepare("advance")  # all of them begin before the first one is waited for
    found: list[Exchanges | None] = [None] * len(plan.groups)
    for number, each in compiled.items():
        with suppress(Exception):  # of the user's functions or of XLA: the group fails when it trains, and tells why
            each.advance.future.result()
            found[number] = each.exchanges
    return replace(plan, exchanges=tuple(found))
