"""Studies of schedules against plain loops, SciPy's splines, and all resamples of a bootstrap."""

import dataclasses
import functools
import itertools
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from click.testing import CliRunner
from matplotlib.figure import Figure
from scipy.interpolate import PchipInterpolator

import hpjax as hpx
from hpjax.core.keys import lane_key, purpose_key, step_key
from hpjax.frontends.cli import main
from hpjax.samplers import Observation
from hpjax.studies import (
    BatchScalingResult,
    ScheduleFamily,
    Schedules,
    SchedulesResult,
    SearchPerAlternative,
    schedule_families,
)
from hpjax.studies.plot import draw_gains
from tests.support.counting import ran

STEPS, SEED, REPLICATES = 20, 3, 9
NAMES = ("cosine", "rex", "two_point_spline")
CURVATURES = np.array([0.2, 1.0, 3.0])
SPACE = hpx.Space(rate=hpx.LogUniform(0.02, 2.0))


def constant(count, h):
    """The peak at every step."""
    return jnp.ones(jnp.shape(count))


CONSTANT, REX = ScheduleFamily(constant), schedule_families(STEPS)["rex"]


def noisy_descent(limit=np.inf):
    """Gradient descent on a quadratic with noisy gradients; rates above a limit diverge on some seeds."""

    def init(key, h):
        return {"w": 1 + 0.5 * jax.random.normal(key, (3,), float), "t": jnp.zeros((), int)}

    def step(key, state, batch, h):
        noise = jax.random.normal(key, (3,), float)
        w = state["w"] - h.rate * h.schedule(state["t"], h) * (CURVATURES * state["w"] + 0.3 * noise)
        lost = (h.rate > limit) & (w[0] > 0.7)
        return {"w": jnp.where(lost, jnp.nan, w), "t": state["t"] + 1}, {}

    def evaluate(key, state, split, h):
        loss = jnp.sum(CURVATURES * state["w"] ** 2) / 2
        return {"loss": loss, "score": -loss}

    return hpx.Program(init, step, evaluate, steps=STEPS, eval_every=STEPS)


def shape_alone(name, h, steps):
    """The shape at every step, by NumPy and SciPy."""
    t, warmup = np.arange(steps), h.get("warmup", 0.0) * steps
    z = np.clip((t - warmup) / (steps - warmup), 0, 1)
    rise = np.divide(t, warmup, where=warmup > 0, out=np.zeros(steps))
    cosine = (1 + np.cos(np.pi * z)) / 2
    two = [h.get(name, 0.0) for name in ("x1", "y1", "x2", "y2")]
    first = warmup + two[0] * (steps - warmup)
    at = [warmup, first, first + two[2] * (steps - first), steps]
    to = [1.0, two[1], two[1] * two[3], 0.0]
    to_end = [*to[:3], to[2] * h.get("y_end", 0.0)]
    knots = [0, two[0] * steps, (two[0] + two[2] * (1 - two[0])) * steps, h.get("x_peak", 0.5) * steps, steps]
    order = np.argsort(knots)
    heights = np.array([h.get("y_start", 0.0), two[1], two[3], 1.0, h.get("y_end", 0.0)])
    quarters = [0, *(warmup + (steps - warmup) * np.array([0, 0.25, 0.5, 0.75, 1]))]
    levels = [0.0, 1.0, *(h.get(name, 0.0) for name in ("y1", "y2", "y3")), 0.0]
    fall = {
        "cosine": lambda: cosine,
        "constant": lambda: np.ones(steps),
        "cosine_y_end": lambda: h["y_end"] + (1 - h["y_end"]) * cosine,
        "sqrt": lambda: np.sqrt(1 - z**2) ** h["exponent"],
        "generalized_cosine": lambda: cosine ** h["exponent"],
        "rex": lambda: (1 - z) / (1 - z + h["beta"] * z),
        "warmup_stable_decay": lambda: np.minimum(1, (1 - z) / (1 - h["stable"])),
        "two_point_linear": lambda: np.interp(t, at, to),
        "two_point_spline": lambda: PchipInterpolator(at, to)(np.maximum(t, warmup)),
        "two_point_spline_y_end": lambda: PchipInterpolator(at, to_end)(np.maximum(t, warmup)),
        "smooth_nonmonotonic": lambda: PchipInterpolator(np.array(knots)[order], heights[order])(t),
        "piecewise_linear": lambda: np.interp(t, quarters, levels),
        "spline": lambda: PchipInterpolator(quarters[1:], levels[1:])(np.maximum(t, warmup)),
    }[name]()
    return fall if name in ("piecewise_linear", "smooth_nonmonotonic") else np.where(t < warmup, rise, fall)


@pytest.mark.parametrize("name", schedule_families(40))
def test_families_are_those_of_numpy_and_scipy(name):
    family = schedule_families(40)[name]
    rng = np.random.default_rng(0)
    run = jax.jit(lambda h: jax.vmap(lambda t: family.shape(t, h))(jnp.arange(40)))
    for _ in range(5):
        point = family.space.from_unit(rng.uniform(0.02, 0.95, len(family.space.dimensions)))
        found = run(hpx.Hparams(point, point))
        np.testing.assert_allclose(found, shape_alone(name, point, 40), atol=2e-6)
    edges = [family.space.from_unit([end] * len(family.space.dimensions)) for end in (0.0, 1.0)]
    for point in edges:
        found = np.asarray(run(hpx.Hparams(point, point)))
        assert ((found >= 0) & (found <= 1)).all(), point


@functools.cache
def draws(replicate):
    """The initial weights of a replicate, and the noise of every step."""

    def draw(t):
        key = lane_key(SEED, replicate)
        steps = jax.vmap(lambda t: jax.random.normal(step_key(purpose_key(key, "step"), t), (3,), float))(t)
        return 1 + 0.5 * jax.random.normal(purpose_key(key, "init"), (3,), float), steps

    return jax.tree.map(np.asarray, jax.jit(draw)(np.arange(STEPS)))


def losses_alone(hparams, replicates):
    """The final loss of every trial and replicate, by a loop in NumPy."""
    losses = np.empty((len(hparams), replicates))
    for trial, h in enumerate(hparams):
        shape = shape_alone(h["schedule"], h, STEPS)
        for replicate in range(replicates):
            w, noise = draws(replicate)
            for t in range(STEPS):
                w = w - h["rate"] * shape[t] * (CURVATURES * w + 0.3 * noise[t])
            losses[trial, replicate] = np.sum(CURVATURES * w**2) / 2
    return losses


def study_of(program=None, **changes):
    settings = {"trials": 6, "replicates": REPLICATES, "seed": SEED, "width": 6, "devices": 1}
    families = changes.pop("families", schedule_families(STEPS, *NAMES))
    return Schedules(program or noisy_descent(), SPACE, families, **(settings | changes))


@pytest.fixture(scope="module")
def answer():
    with jax.enable_x64(True):
        study = study_of()
        assert len(study.plan().groups) == 1
        return study.read(ran(study.sweep, programs=1))


def test_the_best_and_the_gains_are_those_of_a_plain_loop(answer):
    """The median over 4 seeds chooses, 5 others judge; the interval is that of all 5⁵ resamples."""
    with jax.enable_x64(True):
        losses = losses_alone(answer.result.hparams, REPLICATES)
    np.testing.assert_allclose(answer.result.last("valid/loss"), losses, rtol=1e-5)
    own = np.array([h["schedule"] for h in answer.result.hparams])
    best = {name: min(np.flatnonzero(own == name), key=lambda i: np.median(losses[i, :4])) for name in NAMES}
    assert [point.family for point in answer.points] == list(NAMES)
    assert {point.family: point.trial for point in answer.points} == best
    for point in answer.points:
        judged = losses[point.trial, 4:]
        gains = losses[best["cosine"], 4:] - judged
        medians = [np.median(gains[list(drawn)]) for drawn in itertools.product(range(5), repeat=5)]
        assert point.value == pytest.approx(np.median(judged), rel=1e-5)
        expected = [np.median(gains), *np.quantile(medians, [0.025, 0.975], method="inverted_cdf")]
        np.testing.assert_allclose(point.gain, expected, rtol=1e-4, atol=1e-9)
        assert point.better.value == np.mean((gains > 0) + 0.5 * (gains == 0))
        assert point.judges == 5
        medians = np.sort(np.median(losses[own == point.family, :4], axis=1))
        assert point.lead == pytest.approx(medians[1] - medians[0], rel=1e-4)
    assert answer.points[0].gain == (0, 0, 0)
    assert any(point.gain.value != 0 for point in answer.points)


def test_each_family_has_as_many_trials_and_its_own_hyperparameters(answer):
    own = [h["schedule"] for h in answer.result.hparams]
    assert own == [*NAMES] * 6
    assert [list(point.hparams) for point in answer.points] == [
        ["rate", "warmup"],
        ["rate", "warmup", "beta"],
        ["rate", "warmup", "x1", "y1", "x2", "y2"],
    ]
    assert len({h["beta"] for h in answer.result.hparams if h["schedule"] == "rex"}) == 6
    assert len({h["beta"] for h in answer.result.hparams if h["schedule"] != "rex"}) == 1
    table = answer.table()
    assert table["schedule"].tolist() == list(NAMES)
    assert table["gain"].tolist() == [point.gain.value for point in answer.points]
    assert np.isnan(table["beta"]).tolist() == [True, False, True]
    assert {"gain_low", "better_high", "value", "judges", "trial", "rate", "x2"} <= table.keys()


def test_a_metric_to_maximize_gives_the_same_gains(answer):
    with jax.enable_x64(True):
        other = study_of(objective=hpx.maximize("valid/score")).run(progress=False)
    for point, same in zip(other.points, answer.points, strict=True):
        assert (point.trial, point.gain, point.better) == (same.trial, same.gain, same.better)
        assert point.value == -same.value


def test_coordinate_descent_goes_on_from_each_family_s_best_by_the_seeds_that_choose():
    with jax.enable_x64(True):
        study = study_of(sampler=hpx.CoordinateDescent(), rounds=2)
        found = study.sweep.run(progress=False)
    scores = np.median(found.last("valid/loss")[:, :4], axis=1)
    for family in NAMES:
        own = [i for i, h in enumerate(found.hparams) if h["schedule"] == family]
        first = [i for i in own if found.rounds[i] == 0]
        later = [i for i in own if found.rounds[i] == 1]
        assert (len(first), len(later)) == (3, 3)
        best = found.hparams[min(first, key=lambda i: scores[i])]
        for trial in later:
            assert sum(found.hparams[trial][name] != best[name] for name in best) == 1


def test_it_prints_doubts_and_draws(answer, tmp_path):
    text = str(answer)
    assert text.startswith("gain in valid/loss over cosine; 4 seeds chose the best trial of each family, 5 others")
    first = max(answer.points, key=lambda point: point.gain.value)
    assert text.splitlines()[2].split()[0] == first.family, "the largest gain comes first"
    assert "5 seeds judge; 29 tell a family" in text
    assert "Write replicates=58" in text
    assert "luck of the search" not in text
    for family, told in (("rex", "about rex: there"), ("cosine", "about rex, two_point_spline: there")):
        points = [point._replace(lead=9.0) if point.family == family else point for point in answer.points]
        doubts = dataclasses.replace(answer, points=tuple(points)).doubts
        assert any(f"the luck of the search may decide {told}" in doubt for doubt in doubts)
    ax = draw_gains(answer, Figure().subplots())
    dots = ax.lines[1].get_xdata()
    others = [point.gain.value for point in answer.points if point.family != "cosine"]
    np.testing.assert_allclose(dots, sorted(others))
    answer.plot(tmp_path / "gains.png")
    assert (tmp_path / "gains.png").stat().st_size > 5_000


def test_seeds_that_diverge_are_told_and_families_that_do_are_missing():
    """Above a rate of 0.3 trials diverge on some seeds."""
    with jax.enable_x64(True):
        found = study_of(noisy_descent(limit=0.3)).run(progress=False)
        status = found.result.lane_status
        scores = losses_alone(found.result.hparams, REPLICATES)
    own = np.array([h["schedule"] for h in found.result.hparams])
    lost = status == "diverged"
    assert lost.any()
    assert not lost.all()
    assert found.diverged == tuple(int((lost.any(axis=1) & (own == name)).sum()) for name in NAMES)
    whole = ~lost[:, :4].any(axis=1)
    for point in found.points:
        fit = np.flatnonzero(whole & (own == point.family))
        assert point.trial == min(fit, key=lambda i: np.median(scores[i, :4]))
    only = study_of(noisy_descent(limit=0.0)).run(progress=False)
    assert only.missing == NAMES
    assert only.points == ()
    assert only.doubts[0].startswith("cosine: no point, since no trial is complete on the seeds that choose; 6 div")
    assert len(only.table()["gain"]) == 0
    only.plot()


def test_the_command_line_shows_and_draws_it(tmp_path):
    path = tmp_path / "run"
    done = study_of(trials=2, replicates=4).run(path, progress=False)
    again = SchedulesResult.load(path)
    assert (again.points, again.baseline, again.choosing) == (done.points, "cosine", 2)
    study = json.loads((path / "manifest.json").read_text())["sweep"]["study"]
    assert study == {"kind": "schedules", "target": None, "over": "schedule", "complete": None, "baseline": "cosine"}
    shown = CliRunner().invoke(main, ["show", str(path)])
    assert shown.output.startswith("gain in valid/loss over cosine")
    drawn = CliRunner().invoke(main, ["plot", str(path)])
    assert drawn.exit_code == 0, drawn.output
    assert str(path / "gains.png") in drawn.output.splitlines()
    with pytest.raises(hpx.RunError, match="was not run as a batch-scaling study"):
        BatchScalingResult.load(path)
    hpx.Sweep(noisy_descent(), _plain_space(), trials=1).run(tmp_path / "other", progress=False)
    with pytest.raises(hpx.RunError, match=r"was not run as a study of schedules\. Name its baseline"):
        SchedulesResult.load(tmp_path / "other")


def _plain_space():
    cosine = schedule_families(STEPS)["cosine"]
    return SPACE & cosine.space & hpx.Space(schedule=hpx.Choice(cosine.shape, select=True))


def test_each_alternative_has_a_search_of_its_own_that_learns_from_the_seeds_that_choose():
    """By a sampler that proposes what it has seen."""

    class Echo(hpx.samplers.Sampler):
        def propose(self, space, history, start, n, seed):
            best = min([0.0, *(each.score for each in history)])
            return [space.from_unit([min(-best, 1.0)] * len(space.dimensions))] * n

    space = hpx.Space(kind="a", x=hpx.Uniform(0, 1)) | hpx.Space(kind="b", y=hpx.Uniform(0, 1))
    search = SearchPerAlternative(Echo(), choosing=3)
    first = search.ask(space, [], 3, 0)
    assert first == [{"kind": "a", "x": 0.0}, {"kind": "b", "y": 0.0}, {"kind": "a", "x": 0.0}]
    scores = [(-0.5, -0.25, np.inf, -9.0), (-0.75, -0.5, -1.0, 7.0), (np.inf, np.inf, -1.0, -9.0)]
    history = [Observation(point, own, 1) for point, own in zip(first, scores, strict=True)]
    assert search.ask(space, history, 3, 0) == [
        {"kind": "b", "y": 0.75},
        {"kind": "a", "x": 0.25},
        {"kind": "b", "y": 0.75},
    ]
    sobol = SearchPerAlternative(hpx.Sobol(), choosing=3)
    whole = sobol.ask(space, [], 20, 1)
    parts = sobol.ask(space, [], 7, 1)
    parts += sobol.ask(space, [Observation(point, (0.0,) * 4, 1) for point in parts], 13, 1)
    assert parts == whole
    assert len({point["x"] for point in whole if "x" in point}) == 10


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"program": 3}, r"Schedules.program = 3: must be of type Program"),
        ({"families": []}, r"Schedules.baseline = 'cosine': must be one of the families"),
        ({"families": "cosine"}, r"Schedules.families = 'cosine': must be a dict or a list"),
        ({"families": {"mine": CONSTANT, "rex": REX}}, "'mine': must be the name of the family's function"),
        ({"families": [3]}, r"Schedules.families = 3: must be of type ScheduleFamily"),
        ({"families": schedule_families(9, "cosine")}, r"Schedules.families = .'cosine'.: must be two or more"),
        ({"families": [*schedule_families(9).values()] * 2}, r"'cosine': is the name of two families"),
        ({"baseline": "cosin"}, r"Schedules.baseline = 'cosin': must be one of the families. Did you mean"),
        ({"replicates": 3}, r"Schedules.replicates = 3"),
        ({"trials": 0}, r"Schedules.trials = 0"),
        ({"sampler": hpx.Manual([{"rate": 0.1}])}, r"Schedules.sampler = 'Manual': must propose any number"),
        ({"objective": hpx.minimize("valid/loss", 0.5)}, "must be without a quantile"),
        ({"space": hpx.Space(beta=1.0)}, r"Schedules.space = 'beta': is a hyperparameter of a family"),
        ({"space": hpx.Space(schedule=1.0)}, r"Schedules.space = 'schedule': is the schedule itself"),
    ],
)
def test_questions_that_cannot_be_asked_are_refused(changes, message):
    settings = {"program": noisy_descent(), "space": SPACE, "families": schedule_families(STEPS)}
    with pytest.raises(hpx.InputError, match=message):
        Schedules(**(settings | changes))


def test_a_program_without_the_schedule_is_refused():
    program = hpx.Program(
        lambda key, h: jnp.ones(()),
        lambda key, w, batch, h: (w * h.rate, {}),
        lambda key, w, s, h: {"loss": w},
        steps=2,
    )
    with pytest.raises(hpx.InputError, match=r"Schedules.program = 'schedule': is never read by the program"):
        study_of(program).plan()
    with pytest.raises(hpx.InputError, match=r"schedule_families.names = 'rexx': is no family. Did you mean"):
        schedule_families(10, "rexx")
    with pytest.raises(hpx.InputError, match=r"schedule_families.steps = 1"):
        schedule_families(1)


def test_trials_of_different_lengths_are_refused():
    longer = dataclasses.replace(noisy_descent(), steps=lambda h: 2 * STEPS)
    with pytest.raises(hpx.InputError, match=r"'cosine': is for trials of 20 steps, and they take 40. Write .*\(40\)"):
        study_of(longer).plan()
    uneven = dataclasses.replace(noisy_descent(), steps=lambda h: STEPS if h.rate < 0.2 else 5)
    with pytest.raises(hpx.InputError, match=r"steps \[5, 20\]': must be the same for all trials"):
        study_of(uneven).plan()


def test_a_family_may_have_no_hyperparameters():
    study = study_of(noisy_descent(), families=[CONSTANT, REX], baseline="constant")
    answer = study.run(progress=False)
    assert [point.family for point in answer.points] == ["constant", "rex"]
    assert set(answer.points[0].hparams) == {"rate"}


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: ScheduleFamily(functools.partial(lambda t, h: 1.0)), "ScheduleFamily.shape"),
        (lambda: ScheduleFamily(lambda t, h: 1.0), "must be a function with a name"),
        (lambda: ScheduleFamily("cosine"), "ScheduleFamily.shape = 'cosine'"),
        (lambda: ScheduleFamily(constant, {"w": 1}), "ScheduleFamily.space = {'w': 1}: must be one hpx.Space"),
        (lambda: ScheduleFamily(constant, SPACE | hpx.Space(w=1.0)), "must be one hpx.Space, without"),
    ],
)
def test_what_is_no_family_is_told(make, message):
    with pytest.raises(hpx.InputError, match=message):
        make()


def test_domains_of_the_families_can_be_others():
    narrow = hpx.Uniform(0.0, 0.2)
    families = schedule_families(STEPS, "cosine", "rex", "smooth_nonmonotonic", warmup=narrow, beta=0.5)
    assert [family.domains.get("warmup") for family in families.values()] == [narrow, narrow, None]
    assert families["rex"].domains["beta"] == hpx.Space(beta=0.5).branches[0]["beta"]
    assert families["smooth_nonmonotonic"].domains == schedule_families(STEPS)["smooth_nonmonotonic"].domains
    with pytest.raises(
        hpx.InputError, match=r"schedule_families.domains = 'bta': is a hyperparameter of none .* Did you"
    ):
        schedule_families(STEPS, "rex", bta=0.5)
    with pytest.raises(hpx.InputError, match=r"schedule_families.domains = 'x1'"):
        schedule_families(STEPS, "rex", x1=0.5)


def test_a_family_has_its_values_at_every_step():
    rex = schedule_families(8)["rex"].values({"warmup": 0.25, "beta": 0.5, "rate": 0.1})
    z = np.arange(6) / 6
    np.testing.assert_allclose(rex, [0.0, 0.5, *((1 - z) / (1 - z / 2))], atol=1e-6)
    with pytest.raises(hpx.InputError, match=r"ScheduleFamily.steps = None: must be a number"):
        CONSTANT.values({})


def test_results_of_other_sweeps_are_refused(answer):
    with pytest.raises(hpx.InputError, match=r"SchedulesResult.read.name = 'scheduel': must be a hyperparameter"):
        SchedulesResult.read(answer.result, name="scheduel")
    with pytest.raises(hpx.InputError, match=r"SchedulesResult.read.baseline = 'linear': must be one of the families"):
        SchedulesResult.read(answer.result, "linear")
    few = hpx.Sweep(noisy_descent(), _plain_space(), trials=1, replicates=2).run(progress=False)
    with pytest.raises(hpx.InputError, match=r"2 replicates.: must have 4 or more"):
        SchedulesResult.read(few)
