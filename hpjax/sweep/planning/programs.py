"""Of a group of a plan what the engine needs: its program, its lanes, the data."""

from collections.abc import Collection, Mapping
from concurrent.futures import Future
from typing import Any

import jax
import numpy as np

from hpjax.core.hparams import Hparams
from hpjax.core.space import Point
from hpjax.engine import sharding
from hpjax.engine.compile import Compiled, compiling
from hpjax.engine.device_lanes import LaneTable
from hpjax.engine.segment import SegmentConfig
from hpjax.engine.tracing import shapes_of, stack_hparams
from hpjax.sweep.planning.plan import Group, Plan
from hpjax.sweep.planning.planner import Prepared, tracer
from hpjax.sweep.spec import Settings


def splits_on(settings: Settings, mesh: jax.sharding.Mesh) -> tuple[Any, Any]:
    """The train and valid splits, whole on each device; of a stream nothing in place of the first."""
    train, valid = settings.splits
    once = None if settings.stream is not None else sharding.put(train, mesh, sharding.WHOLE)
    return once, once if valid is train else sharding.put(valid, mesh, sharding.WHOLE)


def compiled_of(
    settings: Settings, plan: Plan, group: int, h: Hparams, mesh: jax.sharding.Mesh, splits: tuple[Any, Any]
) -> Future[Compiled]:
    """The program of a group, compiled in the background."""
    train, valid = map(shapes_of, splits)
    if settings.stream is not None:
        train = settings.stream.shapes
    return compiling(recipe_of(settings, plan, group), h, train, valid, mesh, plan.chunks[group])


def recipe_of(settings: Settings, plan: Plan, group: int) -> SegmentConfig:
    """What the program of a group is made of."""
    stream = settings.stream
    return SegmentConfig(
        settings.program,
        plan.shapes[group],
        plan.width_of(group),
        independent=settings.randomness == "independent",
        own_budget=callable(settings.program.steps) or callable(settings.program.microsteps),
        spread=settings.spread,
        lowered=plan.shapes[group].windows and plan.kernels[group] == "batched",
        folds=settings.folds or 1,
        block=None if stream is None else stream.block,
    )


def cohort(
    settings: Settings, prepared: Prepared, group: Group, trials: Collection[int], points: Mapping[int, Point]
) -> LaneTable:
    """The lanes of trials of a group, which have these hyperparameters."""
    budgets = prepared.plan.budgets
    # Lanes that end late stand together, so that a chunk ends when all of its lanes do.
    ordered = sorted(trials, key=lambda t: (-budgets[t], t))
    trial = np.tile(np.array(ordered, np.int32), settings.lanes_a_trial)
    replicate = np.repeat(np.arange(settings.lanes_a_trial, dtype=np.int32), len(ordered))
    own = [points[int(t)] for t in trial]
    budget = np.array([budgets[t] for t in trial], np.int32)
    return LaneTable(
        trial, replicate, budget, stack_hparams(tracer(settings).kinds, own, own[0].keys() - group.static.keys())
    )
