"""Every mistake gives one clear error before any compile: the field, the value, what is allowed, the remedy."""

import dataclasses
import re
import sys
import traceback

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from click.testing import CliRunner
from flax import linen as nn

import hpjax as hpx
from hpjax.core.space import Space
from hpjax.data.examples import Examples
from hpjax.frontends.cli import main
from tests.support.counting import compilations
from tests.support.programs import RATES, SPACE, Net, blobs, classifier, quadratic, rates


def planned(**changes):
    arguments = {"program": quadratic(), "space": RATES, "trials": 4} | changes
    return hpx.Sweep(**arguments).plan()


def trained(**changes):
    program = classifier(**changes)
    return hpx.Sweep(program, SPACE, trials=2).plan()


class Stopper(hpx.Scheduler):
    def decide(self, race):
        return []


def named(name):
    """Functions of a program whose state has one array, of this name."""
    return {"init": lambda key, h: {name: h.rate}, "step": lambda key, state, batch, h: (state, {})} | {
        "evaluate": lambda key, state, split, h: {"loss": h.rate}
    }


KEY = jax.random.key(0)
X, Y = np.ones((10, 5), np.float32), np.arange(10) % 3

MISTAKES = {
    "low above high": (lambda: hpx.Uniform(2, 1), "Uniform.low = 2: must be below high, which is 1. Swap"),
    "low equals high": (lambda: hpx.Int(3, 3), "Int.low = 3: must be below high, which is 3"),
    "bound is a string": (lambda: hpx.Uniform("a", 1), "Uniform.low = 'a': must be a finite number"),
    "bound is NaN": (lambda: hpx.Uniform(float("nan"), 1), "must be a finite number"),
    "log from zero": (
        lambda: hpx.LogUniform(0, 1),
        "LogUniform.low = 0: must be above 0 on a logarithmic scale. Write low=1e-6",
    ),
    "log below zero": (
        lambda: hpx.LogInt(0, 8),
        "LogInt.low = 0: must be 1 or more on a logarithmic scale. Write low=1, or",
    ),
    "one in reverse log": (lambda: hpx.ReverseLogUniform(0.5, 1), "ReverseLogUniform.high = 1: must be below 1"),
    "broken Int": (lambda: hpx.Int(0.5, 3), "Int.low = 0.5: must be an int that int32 holds"),
    "empty choice": (lambda: hpx.Choice(), "Choice.options = (): must not be empty. Write hpx.Choice(64, 256)"),
    "double choice": (lambda: hpx.Choice(1, 2, 1), "Choice.options = 1: is given twice. Name each option once"),
    "list as choice": (lambda: hpx.Choice([64, 64]), "Choice.options = [64, 64]: must be hashable"),
    "default outside": (
        lambda: hpx.Uniform(0, 1, default=2),
        "Uniform.default = 2: must lie in Uniform(0, 1). Write default=0.5",
    ),
    "default no option": (lambda: hpx.Choice(1, 2, default=3), "Choice.default = 3: must lie in Choice(1, 2)"),
    "no identifier": (lambda: Space(**{"learning-rate": 1}), "Space = 'learning-rate': must be a Python identifier"),
    "a keyword": (lambda: Space(**{"lambda": 1}), "Space = 'lambda': must be a Python identifier"),
    "an integer of 65 bits": (
        lambda: hpx.Choice(2**63, 5),
        "Choice.options = 9223372036854775808: must be an integer that 64 bits hold, as all that are",
    ),
    "a constant of 71 bits": (lambda: Space(seed=2**70), "Space.seed = 1180591620717411303424: must be an integer"),
    "an integer that does not print": (lambda: hpx.Choice(10**5000, 5), "Choice.options = <int>: must be an integer"),
    "one inside a tuple": (lambda: hpx.Choice((1, (2, 2**64)), 5), "Choice.options = (1, (2, 18446744073709551616)): "),
    "a deep tuple": (lambda: hpx.Choice((((((((((1,),),),),),),),),), 5), "must not be nested more than 8 levels deep"),
    "ends without a number between": (lambda: hpx.Uniform(0, 5e-324), "Uniform.high = 5e-324: must be farther from"),
    "a name that Python normalizes": (lambda: Space(**{"\ufb01": 1}), "must be written as Python reads h.name"),
    "a name of data that steers a terminal": (
        lambda: hpx.Data(X, X, name="\x1b[31m"),
        "Data.name = '\\x1b[31m': must be printable text, for tables. Write name=",
    ),
    "a name of a metric over two lines": (
        lambda: trained(metrics={"a\nb": hpx.metrics.accuracy}),
        "supervised.metrics = 'a\\nb': must be a string other than loss",
    ),
    "half a surrogate pair in the state": (
        lambda: planned(program=dataclasses.replace(quadratic(), **named("\ud800"))),
        "Sweep.run = 'its record': would write what could not be read again: tree.json",
    ),
    "a column's name": (lambda: Space(gap=1), "Space = 'gap': is a column of result tables. Write gap_0=... instead"),
    "a lane's property": (lambda: Space(fold=1), "is what hpjax calls a property of every lane. Write fold_0=..."),
    "a name of dict's": (lambda: Space(keys=1), "Space = 'keys': is what dict(h) calls. Write keys_0=... instead"),
    "a metric of early stopping": (
        lambda: trained(
            metrics={"best_loss": hpx.metrics.accuracy}, early_stopping=lambda h: hpx.EarlyStopping(patience=2)
        ),
        'supervised.metrics = \'best_loss\': is what early stopping reports. Write {"my_best_loss": function}.',
    ),
    "a metric of a monitor": (
        lambda: trained(metrics={"sparsity": hpx.metrics.accuracy}, monitor=["sparsity"]),
        "supervised.metrics = 'sparsity': is what the program itself reports by this name",
    ),
    "no names": (lambda: Space(), "must name at least one hyperparameter"),
    "name on both sides": (lambda: Space(a=1) & Space(a=2), "is named on both sides of &"),
    "static and traced": (lambda: hpx.Int(1, 2, static=True, traced=True), "static and traced exclude each other"),
    "traced strings": (lambda: hpx.Choice("a", "b", traced=True), "needs numbers"),
    "no trials": (lambda: planned(trials=0), "Sweep.trials = 0: must be a whole number, 1 or more. Write trials=1."),
    "half a trial": (lambda: planned(trials=1.5), "Sweep.trials = 1.5: must be a whole number, 1 or more"),
    "trials left out": (lambda: planned(trials=None), "Sweep.trials = None: must be given, since Sobol has no end"),
    "no replicates": (lambda: planned(replicates=0), "Sweep.replicates = 0: must be a whole number, 1 or more"),
    "negative seed": (lambda: planned(seed=-1), "Sweep.seed = -1: must be a whole number, 0 or more"),
    "zero width": (lambda: planned(width=0), "Sweep.width = 0: must be a whole number, 1 or more"),
    "zero segment": (lambda: planned(segment=0), "Sweep.segment = 0: must be a whole number, 1 or more"),
    "unknown randomness": (lambda: planned(randomness="own"), "Sweep.randomness = 'own': must be one of"),
    "objective as text": (lambda: planned(objective="valid/loss"), 'Write objective=hpx.minimize("valid/loss")'),
    "sampler as class": (lambda: planned(sampler=hpx.Sobol), "must be of type Sampler. Write sampler=hpx.Sobol()"),
    "scheduler without decide": (lambda: planned(scheduler=3), "Sweep.scheduler = 3: must be a Scheduler"),
    "grid without num": (
        lambda: planned(space=Space(rate=hpx.Uniform(0, 1)), sampler=hpx.Grid(), trials=None),
        "is continuous and has no num. Write num=5 in the domain of rate, or",
    ),
    "grid of another size": (
        lambda: planned(space=Space(rate=hpx.Uniform(0, 1, num=3)), sampler=hpx.Grid(), trials=2),
        "Sweep.trials = 2: must be 3, the number of points of Grid. Leave trials out",
    ),
    "manual outside": (lambda: planned(sampler=rates(1e9), trials=None), "point['rate'] = 1000000000.0: must lie in"),
    "manual misnamed": (
        lambda: planned(sampler=hpx.Manual([{"rat": 0.1}]), trials=None),
        "point = 'rat': is no hyperparameter of the space. Did you mean 'rate'?",
    ),
    "manual empty": (lambda: hpx.Manual([]), "Manual.points = []: must be a list of dicts, not empty"),
    "a training metric": (
        lambda: planned(objective=hpx.minimize("train/loss")),
        "Sweep.objective = 'train/loss': must be measured on the validation split",
    ),
    "unknown objective": (
        lambda: planned(objective=hpx.minimize("valid/los")),
        "Sweep.objective = 'valid/los': must be a metric of the program. Did you mean 'valid/loss'? "
        "There are: train/loss, valid/loss.",
    ),
    "misspelt hyperparameter": (
        lambda: trained(optimizer=lambda h: optax.sgd(h.lerning_rate)),
        "h.lerning_rate: this trial has no hyperparameter 'lerning_rate'. Did you mean 'learning_rate'?",
    ),
    "lengths differ": (lambda: hpx.data.from_arrays(X, Y[:-1]), "= ((10, 5), (9,)): x and y must have the same first"),
    "NaN in the data": (
        lambda: hpx.data.from_arrays(np.where(np.eye(10, 5) > 0, np.nan, X), Y),
        "from_arrays x[0, 0] = nan: must be finite, and 5 values are not. Write np.nan_to_num(x)",
    ),
    "words as labels": (lambda: hpx.data.from_arrays(X, ["a"] * 10), "must be numbers. Encode it"),
    "no validation split": (lambda: hpx.data.from_arrays(X, Y, valid=0.0), "from_arrays.valid = 0.0: must be a share"),
    "no training split": (lambda: hpx.data.from_arrays(X, Y, valid=0.5, test=0.5), "from_arrays.train = 0: must hold"),
    "labels outside": (
        lambda: trained(model=Net(classes=2)),
        "data.y = 2: labels must lie in 0 … 1, since the model gives 2 outputs. Write nn.Dense(3) as the last layer",
    ),
    "batch too large": (
        lambda: trained(batch_size=1000),
        "batch_size = 1000: must be at most 54, the size of the training split. Write batch_size=54 for full batches",
    ),
    "batch of h too large": (lambda: trained(batch_size=lambda h: 55), "batch_size = 55: must be at most 54"),
    "no batch": (lambda: trained(batch_size=0), "batch_size = 0: must be a whole number, 1 or more"),
    "no steps": (lambda: trained(steps=0), "Program.steps = 0: must be a whole number, 1 or more"),
    "no steps of h": (lambda: trained(steps=lambda h: 0), "steps = 0: must be a whole number, 1 or more"),
    "no evaluation": (lambda: trained(eval_every=0), "Program.eval_every = 0: must be a whole number, 1 or more"),
    "steps beyond the counter": (lambda: trained(steps=2**30), "must stay below 2**32"),
    "traced by force": (
        lambda: hpx.Sweep(
            classifier(model=lambda h: Net(h.hidden)),
            SPACE & Space(hidden=hpx.Choice(4, 8, traced=True)),
            trials=2,
        ).plan(),
        "Space.hidden.traced = True: cannot be: its value is needed while the program is traced, programs.py:",
    ),
    "model as class": (lambda: trained(model=Net), "must be a Linen module, a function of h, for NNX"),
    "a metric called loss": (
        lambda: trained(metrics={"loss": hpx.metrics.accuracy}),
        "supervised.metrics = 'loss': must be a string other than loss, which the program itself reports. Write",
    ),
    "a metric that is no function": (lambda: trained(metrics={"mae": "mae"}), "supervised.metrics['mae'] = 'mae'"),
    "a list in a space": (
        lambda: Space(a=[1, 2]),
        "Space.a = [1, 2]: must be a domain or a hashable constant. Write a=Choice(",
    ),
    "a domain not called": (lambda: Space(a=hpx.Uniform), "is a class of domains, not a domain. Write Uniform(...)."),
    "a domain beyond int32": (lambda: hpx.Int(0, 2**40), "Int.high = 1099511627776: must be an int that int32 holds"),
    "a domain beyond floats": (lambda: hpx.Uniform(-1e308, 1e308), "must be nearer to low"),
    "labels beyond int32": (lambda: hpx.data.from_arrays(X, Y + 2**40), "must fit in int32. Renumber"),
    "lengths differ in Data": (
        lambda: trained(data=hpx.Data(Examples(X, Y[:4]), Examples(X, Y))),
        "data.train = ((10, 5), (4,)): x and y must have the same first axis",
    ),
    "NaN in Data": (
        lambda: trained(data=hpx.Data(Examples(X * np.nan, Y), Examples(X, Y))),
        "data.train x[0, 0] = nan",
    ),
    "an empty split": (lambda: trained(data=hpx.Data(Examples(X, Y), Examples(X[:0], Y[:0]))), "data.valid = ((0, 5)"),
    "another shape": (
        lambda: trained(data=hpx.Data(Examples(X, Y), Examples(X, Y), Examples(X[:, :2], Y))),
        "data.test = [(2,), ()]: must have the shapes [(5,), ()] for each example, as train. "
        "Write .reshape((-1, 5)) behind the array that differs.",
    ),
    "a broadcast metric": (
        lambda: trained(loss=hpx.metrics.squared_error, metrics={}),
        "outputs = (16, 3): must have the shape of y, (16,). Return outputs[:, 0] from the model",
    ),
    "steps of h as text": (lambda: trained(steps=lambda h: "ten"), "steps = 'ten': must be a whole number"),
    "too many steps by replace": (
        lambda: planned(program=dataclasses.replace(classifier(), steps=2**30), space=SPACE),
        "steps × batch_size",
    ),
    "an objective of one group only": (
        lambda: hpx.Sweep(
            classifier(metrics=lambda h: {"accuracy": hpx.metrics.accuracy} if h.size == 4 else {}),
            SPACE & Space(size=hpx.Choice(4, 8)),
            sampler=hpx.Manual([{"learning_rate": 0.1, "momentum": 0.5, "size": s} for s in (4, 8)]),
            objective=hpx.maximize("valid/accuracy"),
        ).plan(),
        "Sweep.objective = 'valid/accuracy': must be a metric of the program",
    ),
    "scheduler as class": (lambda: planned(scheduler=Stopper), "must be a Scheduler"),
    "no such device count": (
        lambda: planned(devices=64),
        "Sweep.devices = 64: must lie between 1 and 4, the number of cpu devices. Leave devices out to use them all",
    ),
    "no file": (lambda: hpx.data.from_npz("nowhere.npz"), "from_npz.path = 'nowhere.npz': must exist"),
    "no folder": (lambda: hpx.data.from_idx("nowhere"), "from_idx.folder = 'nowhere': must exist"),
    "ragged rows": (lambda: hpx.data.from_arrays([[1, 2], [3]], [0, 1]), "from_arrays x = 'list': must be a regular"),
    "no inputs": (lambda: hpx.data.from_arrays(None, Y), "from_arrays x = None: must be an array, or a pytree of them"),
    "text as data": (lambda: hpx.Data("abc", X), "Data.train = 'abc': must be an array of numbers. Encode it"),
    "keys as data": (lambda: hpx.Data(X, {"k": KEY}), "Data.valid['k'] = 'PRNGKeyArray': must be"),
    "a seed beyond int32": (lambda: planned(seed=2**31), "0 or more, 2147483647 at most"),
    "a metric, not a dict": (
        lambda: trained(metrics=hpx.metrics.accuracy),
        "supervised.metrics = 'accuracy': must be a dict of name to function, or a function of h that returns one. "
        'Write metrics={"accuracy": hpx.metrics.accuracy}.',
    ),
    "a list of metrics": (lambda: trained(metrics=["accuracy"]), "must be a dict of name to function"),
    "NaN as choice": (lambda: hpx.Choice(float("nan"), 1), "Choice.options = nan: must equal itself"),
    "NaN as constant": (lambda: Space(a=float("nan")), "Space.a = nan: must equal itself"),
    "raw arrays": (lambda: dataclasses.replace(quadratic(), data=X), "Program.data = 'ndarray': must be an hpx.Data"),
}  # fmt: skip


@pytest.mark.parametrize("name", MISTAKES)
def test_one_clear_error_before_any_compile(name):
    mistake, message = MISTAKES[name]
    with compilations() as programs, pytest.raises((hpx.InputError, hpx.UnknownHyperparameterError)) as caught:
        mistake()
    assert message in str(caught.value)
    assert programs == []
    assert caught.value.__cause__ is None
    assert "JAX has removed" not in "".join(traceback.format_exception(caught.value))
    files = [frame.filename for frame in traceback.extract_tb(caught.value.__traceback__)]
    assert not any("/jax/" in file or "/flax/" in file for file in files), files


def test_rbg_keys():
    with jax.default_prng_impl("rbg"), pytest.raises(hpx.InputError, match="must be threefry2x32: under vmap rbg"):
        planned()
    keyed = dataclasses.replace(quadratic(), init=lambda key, h: {"w": jax.random.key(0, impl="rbg")})
    with pytest.raises(hpx.ProgramError, match="the state holds an rbg key"):
        planned(program=keyed)


class Broken(nn.Module):
    @nn.compact
    def __call__(self, x):
        return x @ np.ones((7, 3))


def test_a_mistake_in_the_users_own_model_names_their_line():
    with pytest.raises(
        hpx.ProgramError, match=r"(?s)Program.init fails:.*:\d+: return x @ np.ones\(\(7, 3\)\)"
    ) as caught:
        trained(model=Broken())
    assert caught.value.__cause__ is None


@pytest.mark.parametrize(
    ("changes", "where"),
    [
        ({"optimizer": lambda h: optax.sgd(h.lerning_rate)}, "supervised.optimizer fails:"),
        ({"steps": lambda h: h.lerning_rate}, "steps fails:"),
    ],
    ids=("traced", "not traced"),
)
def test_a_misspelt_hyperparameter_names_the_users_line(changes, where):
    with pytest.raises(hpx.UnknownHyperparameterError) as caught:
        trained(**changes)
    first, line, what = str(caught.value).splitlines()
    assert first == where
    assert re.fullmatch(r"  test_bad_input.py:\d+: .*lambda h: .*h.lerning_rate.*", line)
    assert what.startswith("  h.lerning_rate: this trial has no hyperparameter 'lerning_rate'. Did you mean 'learning_")
    assert "JAX has removed" not in "".join(traceback.format_exception(caught.value))


def test_known_hyperparameters_are_listed_in_the_order_of_the_space():
    """A traced function gets them in another order: static ones first, each kind by its names."""
    space = Space(momentum=hpx.Uniform(0.1, 0.9), kind=hpx.Choice("a", "b"), learning_rate=hpx.Uniform(0.1, 0.2))
    for changes in ({"model": lambda h: Net(h.size)}, {"optimizer": lambda h: optax.sgd(h.rate)}):
        with pytest.raises(hpx.UnknownHyperparameterError, match=r"There are: momentum, kind, learning_rate\."):
            hpx.Sweep(classifier(**changes), space, trials=2).plan()


def test_a_mistake_in_one_group_only_names_it_and_blames_no_hyperparameter():
    space = SPACE & Space(kind=hpx.Choice("good", "bad"), rate=hpx.Uniform(0, 1, traced=True))
    program = classifier(model=lambda h: Net() if h.kind == "good" else Broken())
    with pytest.raises(hpx.ProgramError, match=r"return x @ np.ones\(\(7, 3\)\)"):
        hpx.Sweep(program, space, trials=8).plan()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"optimizer": optax.adam}, "supervised.optimizer"),
        ({"loss": lambda a, b, c: a}, "supervised.loss"),
        ({"model": lambda h, rngs: Net()}, "For Linen write model=lambda h: ..."),
        ({"steps": lambda: 10}, "steps fails:"),
        ({"batch_size": lambda h: h.momentum["a"]}, 'momentum["a"]'),
        ({"loss": lambda outputs, y: outputs[:, :1] - y}, "a value for pairs of examples"),
        ({"loss": lambda outputs, y: outputs[:, :1] - jnp.repeat(y, 2)}, "a value for pairs of examples"),
        ({"loss": max}, "supervised.loss"),
    ],
)
def test_a_function_of_the_wrong_kind_is_named(changes, message):
    with pytest.raises((hpx.ProgramError, hpx.InputError)) as caught:
        trained(**changes)
    assert message in str(caught.value)


def test_losses_of_optax_with_optional_arguments_are_constants():
    data = hpx.data.from_arrays(X, np.ones((10, 3), np.float32))
    point = {"learning_rate": 0.01, "momentum": 0.5}
    for loss in (optax.l2_loss, optax.huber_loss):
        program = classifier(loss=loss, data=data, batch_size=2, metrics={})
        result = hpx.Sweep(program, SPACE, sampler=hpx.Manual([point])).run(progress=False)
        assert np.isfinite(result.curves("valid/loss")).all()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"step": lambda key, s, b, h: s}, "must return"),
        ({"step": lambda key, s, b, h: ({"w": s["w"][:1]}, {})}, r"from float32\[3\] to float32\[1\]"),
        ({"step": lambda key, s, b, h: ((s,), {})}, "changes the structure"),
        ({"step": lambda key, s, b, h: (s, {"norms": s["w"]})}, "'norms' of Program.step must be a scalar"),
        ({"evaluate": lambda key, s, b, h: s["w"].sum()}, "as a dict of scalars"),
    ],
)
def test_a_program_that_cannot_be_carried(changes, message):
    with pytest.raises(hpx.ProgramError, match=message):
        planned(program=dataclasses.replace(quadratic(), **changes))


def test_a_loss_that_is_a_mean_already():
    with pytest.raises(hpx.ProgramError, match="loss must give one value for each example"):
        trained(loss=lambda out, y: optax.softmax_cross_entropy_with_integer_labels(out, y).mean())


def test_a_directory_of_a_sweep_with_more_programs(tmp_path):
    """Its widths, one for each program, are none for this sweep."""
    static = hpx.Space(rate=hpx.Choice(0.1, 0.2, 0.3, static=True))
    hpx.Sweep(quadratic(), static, sampler=hpx.Grid()).run(tmp_path, progress=False)
    fewer = hpx.Sweep(quadratic(), hpx.Space(rate=hpx.Choice(0.1, 0.2, static=True)), sampler=hpx.Grid())
    with pytest.raises(hpx.RunError, match=r"(?s)a different sweep.*rate: .*0.3.* there"):
        fewer.run(tmp_path, progress=False)


def test_a_directory_of_another_sweep(tmp_path):
    hpx.Sweep(quadratic(), RATES, trials=4).run(tmp_path / "run", progress=False)
    other = hpx.Sweep(quadratic(size=4), RATES, trials=5, seed=1)
    with compilations() as programs, pytest.raises(hpx.RunError) as caught:
        other.run(tmp_path / "run", progress=False)
    for line in (
        "a different sweep",
        "trials: 4 there, 5 here",
        "seed: 0 there, 1 here",
        "the program's code",
        "Choose another",
    ):
        assert line in str(caught.value)
    assert programs == []


def test_a_directory_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("")
    sweep = hpx.Sweep(quadratic(), RATES, trials=4)
    with compilations() as programs:
        with pytest.raises(hpx.RunError, match="cannot be written"):
            sweep.run(tmp_path / "file" / "run", progress=False)
        with pytest.raises(hpx.RunError, match="is a file, not a run directory"):
            sweep.run(tmp_path / "file", progress=False)
        with pytest.raises(hpx.RunError, match="holds files but no run"):
            sweep.run(tmp_path, progress=False)
    assert programs == []


def test_what_an_interrupted_start_leaves_is_no_other_run(tmp_path):
    for name in (".lock", "manifest.json.part"):
        (tmp_path / name).write_text("")
    assert len(hpx.Sweep(quadratic(), RATES, sampler=rates(0.1)).run(tmp_path, progress=False)) == 1


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("x = 1", "must define sweep"),
        ("sweep = 3", "defines sweep as int, not hpx.Sweep"),
        ("import hpjax\nsweep = hpjax.Uniform(1, 0)", "at sweep.py:2: sweep = hpjax.Uniform(1, 0)"),
    ],
)
def test_a_file_without_a_sweep(tmp_path, monkeypatch, text, message):
    (tmp_path / "sweep.py").write_text(text)
    monkeypatch.setattr(sys, "path", [*sys.path])
    done = CliRunner().invoke(main, ["plan", str(tmp_path / "sweep.py")])
    assert done.exit_code == 2
    assert message in done.stderr
    assert "Traceback" not in done.stderr


def test_blobs_are_what_the_messages_above_count_on():
    assert len(blobs().train.x) == 54


@pytest.mark.parametrize(
    ("value", "shown"), [("0.1", "'0.1'"), ((0.1, 1.0), r"\(0\.1, 1\.0\)"), (hpx.Choice("0.1", "0.2"), "'0.[12]'")]
)
def test_a_type_error_names_the_hyperparameters_that_are_no_numbers(value, shown):
    program = hpx.Program(
        lambda key, h: jnp.zeros(()),
        lambda key, w, batch, h: (w - h.rate * w, {}),
        lambda key, w, split, h: {"loss": w},
        steps=2,
    )
    with pytest.raises(
        hpx.ProgramError, match=rf"(?s)Program.step fails:.*TypeError.*are none: Space.rate = {shown}\."
    ):
        hpx.Sweep(program, Space(rate=value, momentum=hpx.Uniform(0, 1)), trials=4).plan()


def test_what_is_no_metric_objective_or_path_is_refused(tmp_path):
    with pytest.raises(hpx.InputError, match=r'maximize.metric = 3: .* Write hpx.maximize\("valid/loss"\)'):
        hpx.maximize(3)
    program = hpx.Program(
        lambda key, h: jnp.zeros(()), lambda key, w, b, h: (w + h.rate, {}), lambda key, w, s, h: {"loss": w}, steps=2
    )
    sweep = hpx.Sweep(program, Space(rate=hpx.Uniform(0, 1)), trials=2)
    with pytest.raises(hpx.InputError, match=r'run.directory = 5: must be a path. Write sweep.run\("runs/a"\)'):
        sweep.run(5)
    result = sweep.run(tmp_path / "run", progress=False)
    with pytest.raises(hpx.InputError, match=r"top.by = 'valid/loss': must be an objective"):
        result.top(1, by="valid/loss")
