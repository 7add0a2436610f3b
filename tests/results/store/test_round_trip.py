"""What can be written can be read: whatever a plan accepts is found again in the database and the manifest."""

import functools
import json
import math

import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import hpjax as hpx
from hpjax.core.recordable import unrecordable
from hpjax.core.records import jsonable
from hpjax.results.store.final_states import StateShard
from hpjax.results.store.rows import Change, Planned, hparams_of
from hpjax.results.store.run_store import Store
from hpjax.sweep.identity import manifest

# Characters of every kind, half surrogate pairs and those that steer a terminal among them.
ODD = st.characters(categories=["Cs", "Cc", "Cf", "Zl", "Mn"])
TEXT = st.text(st.characters(), max_size=4) | st.text(ODD, max_size=3)
# Identifiers that ``\w`` of regular expressions does not match, or that Python normalizes, among others.
NAMES = st.sampled_from(["a", "rate", "λ", "größe", "l·l", "℘", "की", "変数", "match", "x_0", "ﬁ", "gap"])
WHOLE = st.sampled_from([0, -1, 7, 2**63 - 1, 2**53 + 1, -(2**63), np.int8(3), 2**63, np.uint64(2**64 - 1), 10**400])
REAL = st.sampled_from([0.1, 1e308, 1e301, 5e-324, -0.0, np.float32(0.1), np.float64(1e305), math.inf, math.nan])
NUMBERS = WHOLE | REAL | st.floats() | st.integers(-(2**64), 2**64)
OTHERS = st.sampled_from([None, True, b"a", 1j, len, math.sin, int])
DEEP = st.integers(1, 12).map(lambda depth: functools.reduce(lambda inner, _: (inner,), range(depth), 1))
OPTIONS = NUMBERS | TEXT | OTHERS | DEEP | st.tuples(NUMBERS | TEXT, OTHERS)
KEYS = st.integers(-(2**63), 2**63) | TEXT | st.sampled_from([True, np.int64(3), (1, 2), 0.5])
INTERVALS = [hpx.Uniform, hpx.LogUniform, hpx.Int, hpx.LogInt, hpx.ReverseLogUniform]


def domain(draw):
    """A domain, whose constructor may refuse what it is given."""
    kind = draw(st.sampled_from([hpx.Choice, hpx.Choice, None, *INTERVALS]))
    if kind is None:
        return draw(OPTIONS)
    if kind is hpx.Choice:
        return hpx.Choice(*draw(st.lists(OPTIONS, min_size=1, max_size=3)))
    usual = (-3, 0.5) if kind is hpx.ReverseLogUniform else (1, 8)
    return kind(*draw(mostly(usual, st.tuples(NUMBERS, NUMBERS))))


def mostly(usual, odd):
    """A strategy that gives what is usual in three cases of four."""
    return st.integers(0, 3).flatmap(lambda number: odd if number == 0 else st.just(usual))


@st.composite
def sweeps(draw):
    """A sweep of two trials, or None where something of it is refused."""
    metric, key, name = draw(mostly("loss", TEXT)), draw(mostly("w", KEYS)), draw(mostly("toy", TEXT))

    def init(rng, h):
        return {key: jnp.zeros(())}

    try:
        space = hpx.Space(**{draw(NAMES): domain(draw) for _ in range(draw(st.integers(1, 2)))})
        data = hpx.Data(np.zeros(2), np.zeros(2), name=name)
        program = hpx.Program(
            init,
            lambda rng, s, b, h: (s, {}),
            lambda rng, s, d, h: {metric: jnp.zeros(()), "other": jnp.zeros(())},
            data,
            steps=1,
            describe={name: key, "data": name},
        )
        objective = hpx.minimize(f"valid/{metric}", quantile=draw(st.sampled_from([None, 0.5, np.float32(0.25)])))
        sweep = hpx.Sweep(program, space, trials=2, objective=objective, seed=draw(st.integers(0, 9)))
        return sweep, sweep.plan()
    except (hpx.InputError, hpx.ProgramError) as refused:
        str(refused)
        return None


def write(sweep, plan, directory):
    """What a run of the plan writes, without training."""
    store = Store.create(directory, manifest(sweep.spec, plan, recorded=False))
    points = [{name: jsonable(value) for name, value in point.items()} for point in plan.points]
    ids, groups = np.arange(plan.trials, dtype=np.int32), {t: g.number for g in plan.groups for t in g.trials}
    owners = {"trial": ids, "replicate": ids * 0, "step": ids * 0 + 1}
    metrics = {name: ids.astype(np.float32) for shapes in plan.shapes for name in shapes.metrics}
    with store.transaction():
        store.add_trials([Planned(t, 0, groups[t], 0, 1, point) for t, point in enumerate(points)], 1)
        store.add_curves(0, 0, owners | metrics)
        # A space of one point ends the sweep after one trial.
        store.add_clones([(0, 1, plan.trials - 1, points[-1])])
        store.add_changes(Change(t, 0, "complete", 1) for t in range(plan.trials))
        store.finish(1.0)
    leaves = [(path, ids.astype(np.float32)) for path in plan.shapes[0].names]
    store.states.add(0, [StateShard(np.stack([ids, ids * 0], axis=1), leaves, [None] * len(leaves))])
    store.close()
    return points


def tuples(value):
    return tuple(map(tuples, value)) if isinstance(value, list) else value


accepted = []


@settings(max_examples=150)
@given(sweeps())
def test_what_a_plan_accepts_is_read_again(tmp_path_factory, drawn):
    accepted.append(drawn is not None)
    if drawn is None:
        return
    sweep, plan = drawn
    directory = tmp_path_factory.mktemp("run") / "run"
    points = write(sweep, plan, directory)
    result = hpx.load(directory)
    assert result.names == sweep.space.names
    assert {*result.metrics} == {name for shapes in plan.shapes for name in shapes.metrics}
    for found, point in zip(result.first_hparams, points, strict=True):
        assert repr(found) == repr({name: tuples(value) for name, value in point.items()})
    assert (directory.parent / "run").exists()
    repr(result)
    result.to_csv(directory.parent / "a.csv")
    assert result.table().keys() >= {*result.names, *result.metrics}
    last = len(result) - 1
    restored = result[last].restore()
    assert [*restored.values()] == [last]


def test_much_was_accepted_and_much_refused():
    if len(accepted) < 150:
        pytest.skip("only after the test above")
    assert 0.2 < np.mean(accepted) < 0.8


@given(OPTIONS)
def test_one_rule_for_writing_and_reading(value):
    """``unrecordable`` is told before a run what ``hparams_of`` would refuse after it."""
    try:
        text = json.dumps({"a": jsonable(value)})
        hparams_of(text)
        read = True
    except (hpx.RunError, ValueError):
        read = False
    assert read == (unrecordable(value) is None)
