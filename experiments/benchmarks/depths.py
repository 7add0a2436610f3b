"""Six depths, a group each: what it costs that programs of later groups are traced while others train."""

from groups import varied
from mlp import of
from overhead import EVERY
from worker import Prepared

DEPTHS = tuple(range(1, 7))
sweep = of(64, batch=64, steps=2_000)


def model(depth):
    """Returns an MLP of as many hidden layers."""
    from flax import linen as nn

    return nn.Sequential([layer for _ in range(depth) for layer in (nn.Dense(64), nn.relu)] + [nn.Dense(10)])


def first(workload, arrays, before=False):
    """Prepares a first run of all depths, planned; with ``before`` later groups are traced before."""
    import scipy.stats  # noqa: F401, as samplers do: what a process imports counts on neither side

    whole = varied(workload, arrays, lambda h: model(h.depth), eval_every=EVERY, depth=DEPTHS)
    plan = whole.plan()
    if before:
        traced(whole, plan)
    return Prepared(lambda: whole.run(progress=False).last("valid/loss")[:, 0], warm=False)


def traced(whole, plan):
    """Traces the programs of all groups but the first, which the run then finds."""
    from hpjax.sweep.planning.programs import GroupPrograms

    programs = GroupPrograms.of(whole.spec)
    for group in plan.own_groups[1:]:
        members = programs.lane_table(plan, group, group.trials, dict(enumerate(plan.points)))
        programs.compile(plan, group.number, members.h).check()
