"""The plan: traced or static, grouping, layout, width; nothing of it compiles."""

import dataclasses
import itertools
import re

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import linen as nn
from hypothesis import given
from hypothesis import strategies as st

import hpjax as hpx
from hpjax.engine.layout import EMPTY, arrange, chunks_needed, idle_chunks
from hpjax.sweep.planning.grouping import group
from hpjax.sweep.planning.width import Rate, balanced, best, by_rule, search
from tests.support.counting import OF_A_GROUP, compilations
from tests.support.programs import RATES, classifier, quadratic, rates


class Deep(nn.Module):
    layers: int
    act: object

    @nn.compact
    def __call__(self, x):
        for _ in range(self.layers):
            x = self.act(nn.Dense(4)(x))
        return nn.Dense(3)(x)


def test_traced_or_static_is_found_out_with_the_reason():
    space = hpx.Space(
        rate=hpx.LogUniform(1e-3, 1),
        nesterov=hpx.Choice(True, False),
        layers=hpx.Int(1, 2),
        act=hpx.Choice(nn.relu, nn.tanh),
        batch=hpx.Choice(8, 16),
        epsilon=hpx.Choice(1, 0.5, static=True),
        unused=3,
    )
    program = classifier(
        model=lambda h: Deep(h.layers, h.act),
        optimizer=lambda h: optax.sgd(h.rate * h.epsilon, 0.9, nesterov=h.nesterov),
        batch_size=lambda h: h.batch,
    )
    with compilations() as programs:
        plan = hpx.Sweep(program, space, trials=20).plan()
        text = str(plan)
    assert programs == []
    verdicts = {v.name: v for v in plan.verdicts}
    assert [name for name, v in verdicts.items() if v.traced] == ["rate", "unused"]
    assert verdicts["unused"].reason == "the program never reads it"
    assert "hint: the program never reads unused" in text
    mine, library = verdicts["nesterov"].reason.split(", then ")
    assert mine.startswith("test_plan.py:")
    assert "nesterov=h.nesterov" in mine
    assert "if nesterov" in library, "the line of Optax that branches on it"
    assert "for _ in range(self.layers)" in verdicts["layers"].reason
    assert verdicts["act"].reason == "values are no numbers"
    assert "test_plan.py:" in verdicts["batch"].reason
    assert "batch_size=lambda h: h.batch: batch_size sets the shape of a batch" in verdicts["batch"].reason
    assert verdicts["epsilon"].reason == "static=True"
    for word in (
        "20 trials × 1 replicate = 20 lanes",
        "test_plan.py:",
        "parameters a lane",
        "compiled programs, one a",
    ):
        assert word in text, text
    assert sorted(t for g in plan.groups for t in g.trials) == list(range(20))


def test_a_name_that_is_static_in_one_alternative_only_is_static_in_all():
    space = hpx.Space(rate=0.1, kind="a", size=hpx.Int(2, 3)) | hpx.Space(rate=0.2, kind="b", size=hpx.Int(2, 3))

    def init(key, h):
        return jnp.zeros(h.size if h.kind == "a" else 5)

    program = hpx.Program(
        init, lambda k, s, b, h: (s + h.rate * h.size, {}), lambda k, s, v, h: {"loss": s.sum()}, steps=1
    )
    plan = hpx.Sweep(program, space, sampler=hpx.Grid()).plan()
    assert {v.name: v.traced for v in plan.verdicts} == {"rate": True, "kind": False, "size": False}
    assert len(plan.groups) == 4


def test_parameters_and_memory_are_those_of_the_model():
    plan = hpx.Sweep(classifier(), hpx.Space(learning_rate=0.1, momentum=0.9), sampler=hpx.Grid(), width=4).plan()
    assert plan.shapes[0].parameters == (5 * 8 + 8) + 2 * 8 + (8 * 3 + 3)
    state = 4 * (2 * 91 + 2 * 8)  # parameters and momenta, and the norm's statistics, in float32
    assert plan.shapes[0].parameters == 91
    assert plan.shapes[0].lane_bytes == state


@given(st.lists(st.tuples(st.sampled_from([8, 16]), st.sampled_from(["a", "b"]), st.integers(1, 2)), min_size=1))
def test_grouping_laws(rows):
    hparams = [hpx.Hparams({"rate": 0.1 * i, "size": s, "kind": k}, ["rate"]) for i, (s, k, _) in enumerate(rows)]
    groups = group(hparams, [every for _, _, every in rows], frozenset(["rate"]))
    assert sorted(t for g in groups for t in g.trials) == list(range(len(rows)))
    for g in groups:
        assert {rows[t] for t in g.trials} == {(g.static["size"], g.static["kind"], g.eval_every)}
    assert len({(g.static["size"], g.static["kind"], g.eval_every) for g in groups}) == len(groups), (
        "none can be merged"
    )
    assert [g.trials[0] for g in groups] == sorted(g.trials[0] for g in groups)


@given(
    replicates=st.lists(st.integers(0, 3), min_size=1, max_size=60),
    width=st.integers(1, 9),
    devices=st.integers(1, 5),
    seed=st.integers(0, 9),
)
def test_layout_laws(replicates, width, devices, seed):
    rng_group = np.array(replicates, np.int32)
    live = np.random.default_rng(seed).random(len(rng_group)) < 0.5
    chunks = chunks_needed(rng_group, width, devices)
    placed = arrange(rng_group, live, width, devices, chunks)
    assert sorted(placed.slots[placed.slots != EMPTY]) == list(range(len(rng_group))), "each lane once, none lost"
    positions = placed.positions(len(rng_group))
    assert (placed.slots.reshape(-1)[positions] == np.arange(len(rng_group))).all()
    for device in range(devices):
        for chunk in range(chunks):
            inside = [lane for lane in placed.slots[device, chunk] if lane != EMPTY and live[lane]]
            assert bool(inside) == (chunk < placed.live_chunks[device]), "live chunks stand in front"
            assert len({int(rng_group[lane]) for lane in inside}) <= 1, "lanes of a chunk have the same rng_group"
    assert placed.live_chunks.max() - placed.live_chunks.min() <= 1, "balanced"
    assert idle_chunks(placed, live) == 0
    assert idle_chunks(placed, np.zeros_like(live)) == placed.live_chunks.sum()


@pytest.mark.parametrize(
    ("platform", "lanes", "devices", "memory", "width"),
    [
        ("cpu", 256, 2, None, 8),
        ("cpu", 3, 1, None, 3),
        ("cpu", 1, 4, None, 1),
        ("gpu", 4096, 1, None, 1024),
        ("gpu", 4096, 1, 50_000, 10),
        ("tpu", 100, 8, None, 13),
    ],
)
def test_width(platform, lanes, devices, memory, width):
    assert by_rule(platform, lanes, devices, 1000, memory) == width


def test_width_of_a_chip_with_memory():
    """Lanes stay on the chip that has room for eight times their states."""
    assert by_rule("tpu", 4096, 1, 70_000, 2**34, near=2**27) == 228  # of 239, in equal chunks
    assert by_rule("tpu", 4096, 1, 2**30, 2**34, near=2**27) == 3, "none stays, so that memory decides"
    assert by_rule("tpu", 4096, 1, 2**22, 2**34, near=2**27) == 683, "and where four would: a fifth of the memory"
    assert by_rule("tpu", 4096, 1, 70_000, 2**34) == 1024


def test_replicates_have_luck_of_their_own_and_trials_share_it():
    program = classifier()
    space = hpx.Space(learning_rate=0.1, momentum=hpx.Choice(0.9, 0.5))
    shared = hpx.Sweep(program, space, replicates=2, sampler=hpx.Grid()).run(progress=False)
    first = shared.curves("train/loss")[:, :, 0]
    assert first[0, 0] != first[0, 1]
    state = [[shared[t].restore(r)["params"]["Dense_0"]["kernel"] for r in (0, 1)] for t in (0, 1)]
    assert not np.array_equal(state[0][0], state[0][1])
    again = hpx.Sweep(program, space, replicates=1, sampler=hpx.Grid()).run(progress=False)
    assert np.array_equal(again.curves("train/loss")[:, 0], shared.curves("train/loss")[:, 0])


def noise_program(**changes):
    def evaluate(key, state, split, h):
        return {"loss": state, "noise": jax.random.normal(key, ()) + 0 * h.rate}

    return hpx.Program(lambda key, h: jax.random.normal(key, ()), lambda k, s, b, h: (s, {}), evaluate, steps=1)


def test_shared_and_independent_randomness():
    sampler = rates(0.1, 0.2, 0.3)
    same, own = (
        hpx.Sweep(noise_program(), RATES, sampler=sampler, replicates=2, randomness=kind).run(progress=False)
        for kind in ("shared", "independent")
    )
    for metric in ("valid/loss", "valid/noise"):
        assert len(np.unique(same.last(metric))) == 2
        assert len(np.unique(own.last(metric))) == 6
    from hpjax.core.keys import lane_key, purpose_key, step_key

    expected = jax.random.normal(purpose_key(lane_key(0, 1, 2), "init"), ())
    assert own.last("valid/loss")[2, 1] == expected
    assert own.last("valid/noise")[2, 1] == jax.random.normal(
        step_key(purpose_key(lane_key(0, 1, 2), "evaluate"), 1), ()
    )


def test_trials_of_different_lengths_end_at_their_own_steps():
    """steps as a function of h: each lane ends at its own step, in closed form, whatever the segments."""
    import dataclasses

    space = hpx.Space(rate=0.1, steps=hpx.Int(1, 40))
    points = [{"rate": 0.1, "steps": s} for s in (3, 10, 11, 25, 40, 1)]
    program = dataclasses.replace(quadratic(eval_every=10), steps=lambda h: h.steps)
    sweep = hpx.Sweep(program, space, sampler=hpx.Manual(points), width=4, devices=1)
    with compilations() as programs:
        result = sweep.run(progress=False)
    assert sorted(programs) == sorted([*OF_A_GROUP, "jit(move)"])
    assert result.lane_step[:, 0].tolist() == [3, 10, 11, 25, 40, 1]
    assert (result.statuses == "complete").all()
    for trial, point in enumerate(points):
        w = 1 - (1 - 0.2) ** np.float64(point["steps"])
        np.testing.assert_allclose(result[trial].restore()["w"], w, rtol=1e-5)
        assert result[trial].metrics["valid/loss"] == pytest.approx((w - 1) ** 2, rel=1e-4)
    parts = dataclasses.replace(sweep, segment=7).run(progress=False)
    assert np.array_equal(parts.curves("train/loss"), result.curves("train/loss"), equal_nan=True)
    assert result.curves("step")[:, 0].tolist()[3][:3] == [10, 20, 25]
    # train/loss is the mean since the last evaluation, of the steps that the lane itself took
    losses = [(1 - 0.2) ** (2 * t) for t in range(20, 25)]
    assert result.curves("train/loss")[3, 0, 2] == pytest.approx(np.mean(losses), rel=1e-5)


def test_what_the_program_reads_is_found_behind_jit_and_trees():
    """In a second plan too, when a jitted function of the user is not traced again."""
    jitted = jax.jit(lambda h, w: w - h.rate * (w - 1) if h.kind == "a" else w)

    def step(key, w, batch, h):
        return jitted(h, w) * sum(jax.tree.leaves(h)), {"loss": w}

    program = hpx.Program(lambda k, h: jnp.zeros(()), step, lambda k, w, s, h: {"loss": w}, steps=lambda h: h.length)
    space = hpx.Space(rate=hpx.Uniform(0, 1), b=hpx.Uniform(0, 1), kind=hpx.Choice("a", "b"), length=5)
    for _ in range(2):
        plan = hpx.Sweep(program, space, trials=8).plan()
        assert [v.name for v in plan.verdicts if v.traced] == ["rate", "b", "length"]
        assert "never reads" not in str(plan)


def test_eval_every_of_h_makes_groups():
    import dataclasses

    space = hpx.Space(rate=0.1, every=hpx.Choice(2, 5))
    program = dataclasses.replace(quadratic(10), eval_every=lambda h: h.every)
    result = hpx.Sweep(program, space, sampler=hpx.Grid()).run(progress=False)
    assert [g.eval_every for g in hpx.Sweep(program, space, sampler=hpx.Grid()).plan().groups] == [2, 5]
    assert result.curves("step")[:, 0].tolist()[0] == [2, 4, 6, 8, 10]
    assert result.curves("step")[1, 0, :2].tolist() == [5, 10]
    assert np.isnan(result.curves("step")[1, 0, 2:]).all()


def test_typed_keys_in_the_state_are_carried_and_moved():
    def init(key, h):
        return {"key": key, "sum": jnp.zeros(())}

    def step(key, state, batch, h):
        mine, following = jax.random.split(state["key"])
        return {"key": following, "sum": state["sum"] + jax.random.uniform(mine) * h.rate}, {}

    program = hpx.Program(init, step, lambda k, s, v, h: {"loss": s["sum"]}, steps=4, eval_every=2)

    class StopFirst(hpx.Scheduler):
        def decide(self, race):
            return [0, 1, 2, 3] if race.step == 2 else []

    sampler = rates(*np.linspace(0.1, 0.8, 8))
    plain = hpx.Sweep(program, RATES, sampler=sampler, width=2).run(progress=False)
    moved = hpx.Sweep(program, RATES, sampler=sampler, width=2, scheduler=StopFirst()).run(progress=False)
    assert moved.statuses.tolist() == ["stopped"] * 4 + ["complete"] * 4
    assert np.array_equal(plain.last("valid/loss")[4:], moved.last("valid/loss")[4:])
    from hpjax.core.keys import lane_key, purpose_key

    key, total = purpose_key(lane_key(0, 0), "init"), 0.0
    for _ in range(4):
        mine, key = jax.random.split(key)
        total += float(jax.random.uniform(mine))
    assert plain.last("valid/loss")[7, 0] == pytest.approx(0.8 * total, rel=1e-5)


def test_as_few_slots_as_can_be_stay_empty():
    for lanes, devices, most in itertools.product(range(1, 40), (1, 2, 4), (1, 3, 8)):
        wide, share = balanced(most, lanes, devices), -(-lanes // devices)
        chunks = -(-share // most)
        assert wide <= most
        assert -(-share // wide) == chunks, "as few chunks as the widest has"
        assert all(width * chunks < share for width in range(1, wide)), "and a narrower one would need more"


def found(speeds, begin, factor=2, time=99):
    """The widths that a search looks at, in their order, and which it then takes."""
    widths, seen = search(begin, max(speeds), factor), []
    wide = next(widths)
    while wide is not None and len(seen) < time:
        seen.append(wide)
        try:
            wide = widths.send(speeds[wide])
        except StopIteration:
            wide = None
    return seen, best(Rate(width, "xla", speeds[width]) for width in seen if speeds[width]).width


def test_the_search_for_a_width():
    # Wider is faster up to 16; what is narrower than the first needs no look.
    assert found({1: 1, 2: 2, 4: 4, 8: 8, 16: 12, 32: 12.1}, 8) == ([8, 16, 32], 16)
    # The narrowest that is nearly as fast as the fastest.
    assert found({1: 5, 2: 9.7, 4: 10, 8: 10, 16: 10.2, 32: 9}, 8) == ([8, 16, 4, 2, 1], 2)
    assert found({1: 9, 2: 8, 4: 5, 8: 1, 16: 0.5}, 8) == ([8, 16, 4, 2, 1], 1)
    # What does not fit in memory.
    assert found({1: 1, 4: 2, 16: None, 64: None}, 16, factor=4) == ([16, 64, 4, 1], 4)
    # When time is over.
    assert found({8: 8, 16: 12, 32: 20}, 8, time=2) == ([8, 16], 16)
    assert found({1: 8}, 1) == ([1], 1)


def test_a_program_may_have_barriers_of_its_own():
    """The plan marks with barriers where a step begins and ends, to count its work."""
    plain = quadratic()

    def step(key, state, batch, h):
        jax.lax.optimization_barrier(jnp.int32(0))
        return plain.step(key, jax.lax.optimization_barrier(state), batch, h)

    own = dataclasses.replace(plain, step=step)
    with_barriers, without = (hpx.Sweep(each, RATES, trials=2).plan().shapes[0] for each in (own, plain))
    assert with_barriers.step.flops == without.step.flops
    assert without.step.elements <= with_barriers.step.elements <= without.step.elements + 4
    assert with_barriers.evaluation == without.evaluation


def test_the_work_of_a_step_is_counted():
    """A product of (4, 5) and (5, 6) numbers, three times in a loop; and the square of each of 24 numbers."""

    def step(key, state, batch, h):
        once = jax.lax.scan(lambda total, _: (total + jnp.ones((4, 5)) @ jnp.ones((5, 6)), None), state, length=3)[0]
        return once**2, {}

    zero = hpx.Program(lambda key, h: jnp.zeros((4, 6)), step, lambda k, s, v, h: {"loss": s.sum()}, steps=1)
    work = hpx.Sweep(zero, RATES, trials=2).plan().shapes[0].step
    assert work.flops == 3 * 2 * 4 * 5 * 6


def test_a_long_device_call_is_a_hint_that_its_segment_answers():
    sweep = hpx.Sweep(quadratic(2 * 10**9, 10**9), hpx.Space(rate=hpx.LogUniform(0.01, 0.1)), trials=64)
    (hint,) = (each for each in sweep.plan().hints if "a device call of" in each)
    segment = int(re.search(r"segment=(\d+)", hint)[1])
    plan = dataclasses.replace(sweep, segment=segment).plan()
    assert not any("a device call of" in each for each in plan.hints)
    assert 9 < plan.group_seconds(plan.groups[0]) / plan.segments(plan.groups[0]) <= 10, "a whole number of calls"


def test_what_a_twin_of_hpjax_traces_is_told():
    def hints_of(name, domain, **arguments):
        plan = hpx.Sweep(classifier(**arguments), hpx.Space(**{name: domain}), trials=3).plan()
        return [hint for hint in plan.hints if hint.startswith(f"{name} is static")]

    def dropping(h):
        return nn.Sequential([nn.Dense(4), nn.Dropout(h.rate, deterministic=False), nn.Dense(3)])

    def warmed(h):
        return optax.sgd(optax.linear_schedule(0.0, 0.1, h.warmup))

    sgd = optax.sgd(0.1)
    assert "hpx.nn.Dropout" in hints_of("rate", hpx.Uniform(0, 0.5), model=dropping, optimizer=sgd)[0]
    assert "in hpx.optim" in hints_of("warmup", hpx.Int(1, 9), model=nn.Dense(3), optimizer=warmed)[0]
    size = hints_of(
        "size", hpx.Int(1, 9), model=lambda h: nn.Sequential([nn.Dense(h.size), nn.Dense(3)]), optimizer=sgd
    )
    assert size == []
