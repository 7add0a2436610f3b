"""Comparisons of optimizers against plain loops of Optax, and against NumPy on their own curves."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from click.testing import CliRunner
from matplotlib.figure import Figure

import hpjax as hpx
from hpjax.core.keys import lane_key, purpose_key, step_key
from hpjax.frontends.cli import main
from hpjax.studies import Optimizers, OptimizersResult, optimizer_scores
from hpjax.studies.plot import draw_optimizers, draw_profiles, draw_scores, draw_steps

STEPS, REPLICATES, TRIALS, TARGET = 20, 6, 5, 0.5
CURVATURES = np.array([0.2, 1.0, 3.0])
RATES = hpx.Space(rate=hpx.LogUniform(0.01, 1.0))
PAIR = {
    "sgd": (lambda h: optax.sgd(h.rate, h.momentum), RATES & hpx.Space(momentum=hpx.Uniform(0.0, 0.9))),
    "adam": (lambda h: optax.adam(h.rate), RATES),
}


def noisy_quadratic():
    """A quadratic whose gradients have noise, trained by whatever ``h.optimizer`` is."""

    def init(key, h):
        w = 1 + 0.5 * jax.random.normal(key, (3,), float)
        return {"w": w, "opt": h.optimizer(h).init(w)}

    def step(key, state, batch, h):
        gradient = CURVATURES * state["w"] + 0.3 * jax.random.normal(key, (3,), float)
        updates, opt = h.optimizer(h).update(gradient, state["opt"], state["w"])
        return {"w": optax.apply_updates(state["w"], updates), "opt": opt}, {}

    def evaluate(key, state, split, h):
        return {"loss": jnp.sum(CURVATURES * state["w"] ** 2) / 2}

    return hpx.Program(init, step, evaluate, steps=STEPS, eval_every=2)


def study(program=None, optimizers=PAIR, **changes):
    asked = {"trials": TRIALS, "replicates": REPLICATES, "target": TARGET, "seed": 2, "devices": 1}
    return Optimizers(program or noisy_quadratic(), optimizers, **(asked | changes))


@pytest.fixture(scope="module")
def directory(tmp_path_factory):
    directory = tmp_path_factory.mktemp("optimizers") / "run"
    study().run(directory, progress=False)
    return directory


@pytest.fixture(scope="module")
def answer(directory):
    return OptimizersResult.load(directory)


def alone(trial, replicate, answer):
    """The losses of a lane at each evaluation, by a plain loop."""
    hparams = answer.result.hparams[trial]
    h = hpx.Hparams({name: value for name, value in hparams.items() if name != "optimizer"})
    optimizer = PAIR[hparams["optimizer"]][0](h)
    key = lane_key(2, replicate)
    w = 1 + 0.5 * jax.random.normal(purpose_key(key, "init"), (3,), float)
    state, losses = optimizer.init(w), []
    for t in range(STEPS):
        noise = jax.random.normal(step_key(purpose_key(key, "step"), t), (3,), float)
        updates, state = optimizer.update(CURVATURES * w + 0.3 * noise, state, w)
        w = optax.apply_updates(w, updates)
        if t % 2:
            losses.append(float(jnp.sum(CURVATURES * w**2) / 2))
    return losses


def test_each_optimizer_has_as_many_trials_and_a_program_of_its_own():
    plan = study().plan()
    assert (plan.trials, len(plan.groups), plan.replicates) == (2 * TRIALS, 2, REPLICATES)


def test_lanes_are_those_of_plain_loops(answer):
    point = answer.points[0]
    for trial in (point.trial, answer.points[1].trial):
        found = answer.result.curves("valid/loss")[trial, 4]
        np.testing.assert_allclose(found, alone(trial, 4, answer), rtol=2e-3, atol=1e-5)


def test_the_first_seeds_choose_and_the_others_judge(answer):
    losses = answer.result.last("valid/loss")
    names = np.array([h["optimizer"] for h in answer.result.hparams])
    medians = np.median(losses[:, :3], axis=1)
    best = {name: min(np.flatnonzero(names == name), key=lambda trial: medians[trial]) for name in PAIR}
    first, second = sorted(best.values(), key=lambda trial: medians[trial])
    assert [point.trial for point in answer.points] == [first, second]
    one, other = answer.points
    assert one.value == pytest.approx(np.median(losses[first, 3:]))
    assert (one.gain.value, one.beaten.value) == (0, 0.5)
    assert other.gain.value == pytest.approx(np.median(losses[second, 3:] - losses[first, 3:]))
    wins = losses[first, 3:] < losses[second, 3:]
    assert other.beaten.value == pytest.approx(wins.mean())
    assert one.hparams.keys() == {"rate", "momentum"} - ({"momentum"} if one.optimizer == "adam" else set())


def test_steps_to_the_target_are_those_of_tuning_studies(answer):
    """Five studies of one trial each: the median over trials of the median over seeds."""
    assert answer.studies == (5, 1)
    curves, steps = answer.result.curves("valid/loss"), answer.result.curves("step")
    first = np.where(curves < TARGET, steps, np.inf).min(axis=-1)
    names = np.array([h["optimizer"] for h in answer.result.hparams])
    for point in answer.points:
        wanted = np.median(np.median(first[names == point.optimizer], axis=1))
        assert point.steps.value == wanted
        assert point.reached == np.sum((first[names == point.optimizer] < np.inf).mean(axis=1) > 0.5)
        assert f"  {point.reached} of {TRIALS}  " in str(answer)
        assert point.seconds == pytest.approx(wanted * point.step_seconds)
        assert 0 < point.step_seconds < 1


def test_a_step_costs_what_its_lanes_took_together(answer):
    result = answer.result
    for point in answer.points:
        own = [t for t, h in enumerate(result.hparams) if h["optimizer"] == point.optimizer]
        seconds = result.curves("seconds")[own]
        taken = TRIALS * REPLICATES * (STEPS - 2)  # after the first evaluation
        assert point.step_seconds == pytest.approx((seconds.max() - seconds.min()) / taken)


def test_other_targets_may_be_read_and_what_nobody_reaches_is_told(answer):
    easier = study().read(answer.result, target=100.0)
    assert [point.steps.value for point in easier.points] == [2, 2], "the first evaluation"
    lost = study().read(answer.result, target=0.0)
    assert [point.steps.value for point in lost.points] == [np.inf, np.inf]
    assert any("no optimizer reaches the target 0" in doubt for doubt in lost.doubts)
    assert "∞" not in str(lost)
    assert np.isnan(OptimizersResult.read(answer.result).points[0].steps.value)
    assert "steps" not in str(OptimizersResult.read(answer.result)).splitlines()[1]


def test_edges_and_divergence_are_told():
    narrow = {
        "slow": (lambda h: optax.sgd(h.rate), hpx.Space(rate=hpx.LogUniform(1e-4, 1e-3, default=1e-3))),
        "wild": (lambda h: optax.sgd(h.rate), hpx.Space(rate=hpx.LogUniform(5.0, 1e30))),
    }
    found = study(optimizers=narrow).run(progress=False)
    assert found.points[0].optimizer == "slow"
    assert any("slow: the best rate" in each and "highest end of its domain" in each for each in found.doubts)
    wild = found.points[1]
    assert wild.diverged > 2
    if wild.trial is None:
        assert any("wild: no trial is complete" in each for each in found.doubts)
    else:
        assert any("wild:" in each and "trials diverged" in each for each in found.doubts)


def with_steps(answer, **steps):
    points = tuple(p._replace(steps=hpx.analysis.Estimate(*[steps[p.optimizer]] * 3)) for p in answer.points)
    return dataclasses.replace(answer, points=points)


def test_scores_over_tasks_are_areas_under_profiles(answer):
    """Of two tasks on which the optimizers take (a, b) and (a, 2a) steps."""
    steps = {point.optimizer: point.steps.value for point in answer.points}
    other = with_steps(answer, sgd=4.0, adam=8.0)
    found = optimizer_scores({"one": other}).scores
    assert {name: score.value for name, score in found.items()} == {"sgd": 1.0, "adam": pytest.approx((4 - 2) / 3)}
    both = optimizer_scores({"one": other, "two": answer})
    ratio = steps["adam"] / min(steps.values())
    wanted = np.mean([2 / 3, np.clip(4 - ratio, 0, None) / 3])
    assert both.scores["adam"].value == pytest.approx(wanted)
    assert both.ratios["adam"] == (2.0, pytest.approx(ratio))
    lost = optimizer_scores({"one": other, "two": with_steps(answer, sgd=np.inf, adam=6.0)})
    assert lost.scores["sgd"].value == 0.5
    assert [line.split()[-1] for line in str(lost).splitlines() if "sgd" in line] == ["-"]
    columns = lost.table()
    assert columns.keys() == {"optimizer", "value", "low", "high", "one", "two"}
    assert list(columns["two"]) == [lost.ratios[name][1] for name in columns["optimizer"]]


def test_intervals_of_scores_are_those_of_draws_of_studies(answer):
    """Of five studies of one trial each: on one draw all five trials of each, so that all draws agree."""
    found = optimizer_scores({"one": answer})
    for score in found.scores.values():
        assert score.low == score.high == score.value
    # Studies of one of the five trials each: the score by every trial of one optimizer beside every one of the other.
    lone = dataclasses.replace(answer, studies=(1, 1))
    times = lone.times()
    pairs = [(a, b) for a in times["sgd"] for b in times["adam"]]
    areas = [max(4 - a / min(a, b), 0) / 3 if np.isfinite(a) else 0 for a, b in pairs]
    score = optimizer_scores({"one": lone}).scores["sgd"]
    assert len(set(areas)) > 2
    assert score.low == pytest.approx(np.quantile(areas, 0.025, method="nearest"))
    assert score.high == pytest.approx(np.quantile(areas, 0.975, method="nearest"))


def test_times_are_medians_over_the_seeds_of_each_trial(answer):
    curves, steps = answer.result.curves("valid/loss"), answer.result.curves("step")
    first = np.where(curves < TARGET, steps, np.inf).min(axis=-1)
    names = np.array([h["optimizer"] for h in answer.result.hparams])
    for name, times in answer.times().items():
        np.testing.assert_array_equal(times, np.median(first[names == name], axis=1))
    assert all(np.isnan(times).all() for times in OptimizersResult.read(answer.result).times().values())


@pytest.mark.parametrize(
    ("make", "told"),
    [
        (lambda answer: {}, "optimizer_scores.answers = {}: must have a task or more"),
        (lambda answer: {"x": dataclasses.replace(answer, target=None)}, r"optimizer_scores.answers\['x'\]"),
        (
            lambda answer: {"x": study().read(answer.result, target=0.0)},
            r"answers\['x'\].target = 0.0: must be a target that an optimizer reaches",
        ),
    ],
)
def test_tasks_that_give_no_scores_are_told(answer, make, told):
    with pytest.raises(hpx.InputError, match=told):
        optimizer_scores(make(answer))


def test_the_picture_of_scores_has_profiles_scores_and_steps(answer):
    scores = optimizer_scores({"one": with_steps(answer, sgd=4.0, adam=8.0), "two": answer})
    ax = draw_profiles(scores, Figure().subplots())
    by_name = {line.get_label(): line for line in ax.lines}
    for name, line in by_name.items():
        ratios = np.array(scores.ratios[name])
        for place, share in zip(*line.get_data(), strict=True):
            assert share == np.mean(ratios <= place)
    assert by_name["adam"].get_color() != by_name["sgd"].get_color()
    dots = draw_scores(scores, Figure().subplots()).lines[0]
    assert list(dots.get_xdata()) == sorted(score.value for score in scores.scores.values())
    figure = scores.plot()
    titles = [ax.get_xlabel() for ax in figure.axes]
    assert titles[2:] == ["one: steps to the target", "two: steps to the target"]


def test_optimizers_that_do_not_reach_the_target_are_named(answer):
    steps = draw_steps(with_steps(answer, sgd=4.0, adam=np.inf), Figure().subplots())
    assert [label.get_text() for label in steps.get_yticklabels()] == ["adam", "sgd"]
    assert [(text.get_text(), text.xy[1]) for text in steps.texts] == [("not reached", 0)]
    open_ended = with_steps(answer, sgd=4.0, adam=5.0)
    first = open_ended.points[0]
    never = first._replace(steps=first.steps._replace(low=1.0, high=np.inf))
    shown = draw_steps(dataclasses.replace(open_ended, points=(never, open_ended.points[1])), Figure().subplots())
    assert [text.get_text() for text in shown.texts] == [""], "an arrow"


def test_the_command_line_reads_and_draws_it(directory, tmp_path):
    shown = CliRunner().invoke(main, ["show", str(directory)])
    assert "3 seeds chose the best trial of each optimizer, 3 others judge it" in shown.output, shown.output
    assert "steps to target" in shown.output
    drawn = CliRunner().invoke(main, ["plot", str(directory), "--out", str(tmp_path)])
    assert (tmp_path / "optimizers.png").exists(), drawn.output


def test_the_picture_has_the_medians_of_the_judges_and_the_steps(answer):
    ax = draw_optimizers(answer, Figure().subplots())
    for line, point in zip(ax.lines, answer.points, strict=False):
        assert line.get_label() == point.optimizer
        own = answer.result.curves("valid/loss")[point.trial, 3:]
        np.testing.assert_allclose(line.get_ydata(), np.median(own, axis=0))
    steps = draw_steps(answer, Figure().subplots())
    names = [label.get_text() for label in steps.get_yticklabels()]
    assert names == [p.optimizer for p in sorted(answer.points, key=lambda p: -p.steps.value)]
    assert len(answer.plot().axes) == 2
    assert list(answer.table()["optimizer"]) == [point.optimizer for point in answer.points]


ONE = (lambda h: optax.sgd(h.rate), RATES)


@pytest.mark.parametrize(
    ("make", "told"),
    [
        (lambda: study(optimizers={"sgd": ONE}), "must be name to .optimizer, space., of two or more"),
        (lambda: study(optimizers={"sgd": ONE, "my adam": ONE}), "'my adam': must be a name of letters"),
        (
            lambda: study(optimizers={"sgd": ONE, "adam": optax.adam}),
            r"optimizers\['adam'\] = .*: must be a function of h",
        ),
        (lambda: study(optimizers={"sgd": ONE, "adam": (optax.adam, None)}), "and an hpx.Space of what it reads"),
        (lambda: study(optimizers={"a": ONE, "b": (ONE[0], RATES | RATES)}), "must have one space, without"),
        (lambda: study(optimizers={"a": ONE, "b": (ONE[0], hpx.Space(optimizer=1.0))}), "is the optimizer itself"),
        (lambda: study(replicates=3), "Optimizers.replicates = 3"),
        (lambda: study(trials=0), "Optimizers.trials = 0"),
        (lambda: study(target="low"), "Optimizers.target = 'low'"),
        (lambda: study(objective=hpx.minimize("valid/loss", 0.5)), "must be without a quantile"),
        (lambda: study(program=3), "Optimizers.program = 3"),
        (
            lambda: study(dataclasses.replace(noisy_quadratic(), steps=lambda h: 20 if h.rate < 0.1 else 10)).plan(),
            r"steps \[10, 20\]': must be the same for all trials",
        ),
    ],
)
def test_what_cannot_be_asked_is_told(make, told):
    with pytest.raises(hpx.InputError, match=told):
        make()


def test_a_program_without_the_optimizer_is_refused():
    fixed = hpx.Program(
        lambda key, h: jnp.ones(()),
        lambda key, w, batch, h: (w * h.rate, {}),
        lambda key, w, split, h: {"loss": w},
        steps=2,
    )
    with pytest.raises(hpx.InputError, match="'optimizer': is never read by the program"):
        study(fixed).plan()
