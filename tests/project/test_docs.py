"""What README and documentation show runs as it stands, only smaller; and every public name is in the reference.

Pages are Markdown. Comments that readers do not see say how a page is run:

- `<!-- tests: run` … `-->` is code that runs in its place, such as imports that are taken for granted;
- `<!-- tests: smaller` … `-->` has lines `this → that`, replaced in all blocks that follow, so that little is trained;
- `<!-- tests: shell -->`: from here on commands of `hpjax` are run, elsewhere they are only parsed.

The blocks of a page share their names and a folder of their own.
"""

import dataclasses
import doctest
import functools
import inspect
import re
import shlex
import sys
import tomllib
import types
import typing
from importlib import import_module
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

import hpjax as hpx

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
REFERENCE = "".join(page.read_text() for page in (ROOT / "docs" / "reference").glob("*.md"))
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
BLOCK = re.compile(r"^```([^\n]*)\n(.*?)^```$|^<!-- tests: (\w+)(.*?)-->$", re.DOTALL | re.MULTILINE)
SHOWN = ("text", "json")  # what is printed, which nobody runs


def public(module):
    """The public names of a module of hpjax, without its modules."""
    module = getattr(hpx, module)
    return [name for name in module.__all__ if not inspect.ismodule(getattr(module, name))]


def named(path):
    """What `hpjax.studies.fit_steps` names."""
    return functools.reduce(getattr, path.split(".")[1:], hpx)


def members(cls):
    """The public methods and properties of a class, without what it has from other packages."""
    kinds = (types.FunctionType, classmethod, staticmethod, property, functools.cached_property)
    own = [base for base in cls.__mro__ if base.__module__.startswith("hpjax.")]
    return {name for base in own for name, value in vars(base).items() if name[0] != "_" and isinstance(value, kinds)}


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of what MLflow imports
@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_blocks_run(page, tmp_path, monkeypatch, others):
    monkeypatch.chdir(tmp_path)
    names = {"__name__": "__main__"}
    smaller, unused, shell = {}, set(), parsed
    for language, block, what, argument in BLOCK.findall(page.read_text()):
        if what == "smaller":
            smaller |= dict(line.split(" → ") for line in argument.strip().splitlines())
            unused |= smaller.keys()
            continue
        if what == "shell":
            shell = executed
            continue
        code = argument if what == "run" else block
        for this, that in smaller.items():
            unused -= {this} if this in code else set()
            code = code.replace(this, that)
        if what == "run" or language == "python":
            # Where tracebacks and plans look for the lines.
            file = tmp_path / "example.py"
            file.write_text(code)
            exec(compile(code, str(file), "exec"), names)
        elif language == "pycon":
            example = doctest.DocTestParser().get_doctest(code, names, page.stem, str(page), 0)
            runner = doctest.DocTestRunner(optionflags=doctest.NORMALIZE_WHITESPACE)
            runner.run(example, clear_globs=False)
            names |= example.globs
            assert runner.summarize(verbose=False).failed == 0
        elif language == "sh":
            for command in commands(code):
                shell(command, monkeypatch)
        else:
            assert language in SHOWN or language.startswith("{"), f"what is {language!r}?"
    assert not unused, "what was to be smaller is not there any more"
    assert all(others.values()) or page.stem != "tracking"


def commands(code):
    """The commands of a shell block as lists of words, those within others too."""
    lines = re.sub(r"\\\n\s*", "", code).splitlines()
    for line in lines:
        words = shlex.split(line, comments=True)
        if words[:1] == ["gcloud"]:
            words = shlex.split(next(word for word in words if word.startswith("--command=")).split("=", 1)[1])
        if words[:1] == ["srun"]:
            words = words[1:]
        if words:
            yield words


def the_cli():
    module, name = PROJECT["scripts"]["hpjax"].split(":")
    return getattr(import_module(module), name)


def parsed(words, monkeypatch):
    """Checks that a command exists, with these flags."""
    if words[0] == "hpjax":
        command = the_cli().commands[words[1]]
        command.make_context("hpjax", [word.replace("$SLURM_ARRAY_TASK_ID", "1") for word in words[2:]])
    elif words[0] == "make":
        assert re.search(rf"^{words[1]}:", (ROOT / "Makefile").read_text(), re.MULTILINE), words
    elif words[:3] == ["python3", "-m", "venv"]:
        assert words[4:] == ["&&", "source", f"{words[3]}/bin/activate"], words
    elif words[0] == "python":
        assert (ROOT / words[1]).is_file(), words
    elif words[:2] == ["pip", "install"]:
        extras = re.search(r"\[(.*)\]", words[2])
        assert set(extras[1].split(",")) <= set(PROJECT["optional-dependencies"]), words
    else:
        raise AssertionError(f"nobody checks {words}")


def executed(words, monkeypatch):
    """Runs a command of hpjax in this process."""
    if words[0] != "hpjax":
        return parsed(words, monkeypatch)
    monkeypatch.setattr(sys, "argv", words)
    done = CliRunner().invoke(the_cli(), words[1:])
    assert done.exit_code == 0, f"{words}: {done.output}\n{done.exception!r}"


@pytest.fixture(autouse=True)
def others(monkeypatch):
    """Ray, submitit's cluster and some trackers, which are not there, by what is asked of them."""
    tune = types.ModuleType("ray.tune")
    tune.reports = []
    tune.loguniform = lambda low, high: (low * high) ** 0.5
    tune.uniform = lambda low, high: (low + high) / 2
    tune.report = tune.reports.append
    tune.TuneConfig = lambda *, metric, mode, num_samples, scheduler: (metric, mode, num_samples, scheduler)

    class Tuner:
        def __init__(self, train, *, param_space, tune_config):
            self.train, self.space, self.metric = train, param_space, tune_config[0]

        def fit(self):
            self.train(self.space)
            assert self.metric in tune.reports[-1]
            return self

        def get_best_result(self):
            return types.SimpleNamespace(config=self.space, metrics=tune.reports[-1])

    tune.Tuner = Tuner
    schedulers = types.ModuleType("ray.tune.schedulers")
    schedulers.ASHAScheduler = lambda *, max_t, grace_period, reduction_factor: None
    ray = types.ModuleType("ray")
    ray.tune, tune.schedulers = tune, schedulers
    for module in (ray, tune, schedulers):
        monkeypatch.setitem(sys.modules, module.__name__, module)

    import submitit

    class Here:
        """Runs jobs one after the other, in this process."""

        def __init__(self, folder, slurm_max_num_timeout):
            assert slurm_max_num_timeout > 0

        def update_parameters(self, timeout_min, gpus_per_node):
            assert timeout_min > 0

        def submit_array(self, jobs):
            return [types.SimpleNamespace(result=lambda found=job(): found) for job in jobs]

    monkeypatch.setattr(submitit, "AutoExecutor", Here)
    # Of what is tracked by functions each must be told something.
    aim, comet, trackio = (types.ModuleType(name) for name in ("aim", "comet_ml", "trackio"))
    told = {module.__name__: [] for module in (aim, comet, trackio)}
    aim.Run = lambda *, experiment: types.SimpleNamespace(
        track=lambda value, *, name, step, context: told["aim"].append((value, name, step, context))
    )
    comet.start = lambda *, project_name: types.SimpleNamespace(
        log_metrics=lambda metrics, step: told["comet_ml"].append((metrics, step))
    )
    trackio.init, trackio.log = (lambda *, project: None), told["trackio"].append
    for module in (aim, comet, trackio):
        monkeypatch.setitem(sys.modules, module.__name__, module)
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    return told


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_links_lead_somewhere(page):
    text = re.sub(r"```.*?```", "", page.read_text(), flags=re.DOTALL)
    for link in re.findall(r"\]\(([\w/.-]+)(?:#[\w-]+)?\)", text):
        assert (page.parent / link).exists(), link
        assert page.name != "README.md", f"{link}: a package index shows the README without its repository"


def test_every_public_name_is_in_the_reference():
    entry = re.compile(r"^\.\. (?:auto(?:class|function|exception)|py:type):: ([\w.]+)(?:\(\))?$", re.MULTILINE)
    there = set(entry.findall(REFERENCE))
    wanted = {f"hpjax.{name}" for name in hpx.__all__ if not inspect.ismodule(getattr(hpx, name))}
    for module in hpx._MODULES:
        for name in public(module):
            # One of hpjax itself stands there alone.
            own = getattr(hpx, name, None) is getattr(getattr(hpx, module), name)
            wanted.add(f"hpjax.{name}" if own else f"hpjax.{module}.{name}")
    wanted |= {f"hpjax.studies.plot.{name}" for name in hpx.studies.plot.__all__}
    assert there == wanted


def test_every_public_member_is_in_the_reference():
    """Of the classes whose members it shows; what an entry of its own tells of a base class is not told again."""
    entries = re.findall(r"^\.\. autoclass:: ([\w.]+)(?:\(\))?\n((?:   :.*\n)*)", REFERENCE, re.MULTILINE)
    classes = {named(path): dict(re.findall(r":([\w-]+): *(.*)", options)) for path, options in entries}
    assert len(classes) >= 40
    for cls, options in classes.items():
        if "members" not in options:
            continue
        elsewhere = {name for base in cls.__mro__[1:] if base in classes for name in members(base)}
        if options["members"]:
            shown = set(options["members"].split(", "))
        elif "inherited-members" in options:
            shown = set(dir(cls))
        else:
            shown = set(vars(cls))
        assert members(cls) - elsewhere <= shown, cls


def test_the_modules_are_those_of_the_reference():
    """`docs/conf.py` looks for types in the same modules."""
    names = {"hpx": hpx}
    exec((ROOT / "docs" / "conf.py").read_text(), names)
    assert set(names["MODULES"]) == hpx._MODULES.keys()


@pytest.mark.parametrize("page", ["README.md", "docs/getting-started.md"])
def test_the_plan_that_is_shown_is_the_one_that_is_printed(page, tmp_path):
    """Its table of hyperparameters, since devices and times are those of whoever prints it."""
    blocks = [(language, block) for language, block, *_ in BLOCK.findall((ROOT / page).read_text())]
    code = next(block for language, block in blocks if language == "python").partition("print(")[0]
    file = tmp_path / "example.py"
    file.write_text(code)
    names = {}
    exec(compile(code, str(file), "exec"), names)
    plan = str(names["sweep"].plan())
    table = plan[plan.index("  hyperparameter") :].partition("\n\n")[0]
    assert any(language == "text" and table in block for language, block in blocks)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_files_that_are_named_exist(page):
    for name in re.findall(r"`((?:tests|experiments|docs)/[\w/.-]+)`", page.read_text()):
        assert (ROOT / name).exists() or name.startswith("docs/_build"), name


def test_who_reads_the_readme_from_its_beginning_can_run_its_example():
    text = (ROOT / "README.md").read_text()
    steps = ("python3 -m venv", "pip install '.[", "```python", "`python example.py`", "`hpjax show runs/digits`")
    found = [text.index(step) for step in steps]
    assert found == sorted(found)


def test_getting_started_says_where_its_blocks_go():
    """Before the first, since plans name lines of that file."""
    text = (ROOT / "docs" / "getting-started.md").read_text()
    assert "as `example.py`" in text.partition("```python")[0]


def test_both_first_examples_take_the_same_models():
    pages = ((ROOT / page).read_text() for page in ("README.md", "docs/getting-started.md"))
    here, there = (re.search(r"^ +model=.*", page, re.MULTILINE)[0] for page in pages)
    assert here == there


def test_the_readme_is_read_in_five_minutes():
    assert len((ROOT / "README.md").read_text().split()) <= 900


def test_every_kind_of_event_is_documented():
    page = (ROOT / "docs" / "programs.md").read_text()
    for event in typing.get_args(hpx.Event):
        kind = next(field.default for field in dataclasses.fields(event) if field.name == "kind")
        assert f'| `"{kind}"` | {{obj}}`hpx.{event.__name__} <hpjax.{event.__name__}>` |' in page
        told = inspect.getdoc(event).partition("Attributes:")[2]
        assert all(f"\n  {field.name}: " in told for field in dataclasses.fields(event)), event


@pytest.mark.parametrize("extra", ["cli", "plot", "report", "optuna", "safetensors"])
def test_the_extras_that_commands_need_are_named_before_any_command(extra):
    assert extra in PROJECT["optional-dependencies"]
    text = (ROOT / "docs" / "command-line.md").read_text().partition("```sh")[0]
    assert f"needs `{extra}`" in text or f"'.[{extra}]'" in text


def test_every_command_is_documented():
    page = (ROOT / "docs" / "command-line.md").read_text()
    for name, command in the_cli().commands.items():
        assert f"hpjax {name}" in page
        for option in command.params:
            if isinstance(option, click.Option):
                assert any(f"`{flag}" in page or f" {flag}" in page for flag in option.opts), (name, option.opts)
