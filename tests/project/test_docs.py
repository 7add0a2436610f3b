"""What README and documentation show runs as it stands, only smaller; and every public name is in the reference.

Pages are Markdown. Comments that readers do not see say how a page is run:

- `<!-- tests: run` … `-->` is code that runs in its place, such as imports that are taken for granted;
- `<!-- tests: smaller` … `-->` has lines `this → that`, replaced in all blocks that follow, so that little is trained;
- `<!-- tests: shell -->`: from here on commands of `hpjax` are run, elsewhere they are only parsed.

The blocks of a page share their names and a folder of their own.
"""

import doctest
import inspect
import re
import shlex
import sys
import tomllib
import types
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

# What `hpx.<name>` is public of, where the module does not say so in `__all__`.
MODULES = {
    "data": None, "nn": None, "optim": None, "samplers": None, "schedulers": None, "metrics": None, "sklearn": None,
    "losses": ("cross_entropy", "l1", "l2"),
    "keys": ("lane_key", "purpose_key", "step_key"),
    "distributed": ("initialize",),
    "testing": ("check_sampler", "check_scheduler"),
    "cluster": ("Job",),
    "plot": (
        *("overview", "pictures", "draw_curves", "draw_axis", "draw_map", "draw_rungs", "draw_lineage"),
    ),
    "studies": (
        *("BatchScaling", "BatchScalingResult", "ScalingPoint", "TrialCounts", "SearchPerBatchSize"),
        *("fit_steps", "fit_rates", "StepsFit", "RateFit", "noise_scale", "noise_scale_of", "NoiseScale"),
        "NoisyQuadratic",
    ),
}  # fmt: skip


def public(module):
    """The public names of a module of hpjax."""
    return getattr(getattr(hpx, module), "__all__", None) or MODULES[module]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_blocks_run(page, tmp_path, monkeypatch):
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
    """Ray and submitit's cluster, which are not there, by what is asked of them."""
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
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_links_lead_somewhere(page):
    text = re.sub(r"```.*?```", "", page.read_text(), flags=re.DOTALL)
    for link in re.findall(r"\]\(([\w/.-]+)(?:#[\w-]+)?\)", text):
        assert (page.parent / link).exists(), link
        assert page.name != "README.md", f"{link}: a package index shows the README without its repository"


def test_every_public_name_is_in_the_reference():
    there = set(re.findall(r"^\.\. auto(?:class|function|exception):: ([\w.]+)(?:\(\))?$", REFERENCE, re.MULTILINE))
    wanted = {f"hpjax.{name}" for name in hpx.__all__ if not inspect.ismodule(getattr(hpx, name))}
    for module in MODULES:
        for name in public(module):
            # One of hpjax itself stands there alone.
            own = getattr(hpx, name, None) is getattr(getattr(hpx, module), name)
            wanted.add(f"hpjax.{name}" if own else f"hpjax.{module}.{name}")
    wanted |= {f"hpjax.studies.plot.{name}" for name in ("scaling", "draw_scaling", "draw_rates")}
    assert there == wanted


def test_the_modules_are_those_of_the_reference():
    """`docs/conf.py` looks for types in the same modules."""
    names = {"hpx": hpx}
    exec((ROOT / "docs" / "conf.py").read_text(), names)
    assert set(names["MODULES"]) == MODULES.keys()
    modules = {name for name in hpx.__all__ if inspect.ismodule(getattr(hpx, name))}
    assert modules <= set(MODULES)


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
    table = plan[plan.index("  hyperparameter") : plan.index("2 compiled programs")]
    assert any(language == "text" and table in block for language, block in blocks)


@pytest.mark.parametrize("page", ["README.md", "docs/benchmarks.md"])
def test_ratios_are_those_that_were_measured(page):
    measured = (ROOT / "experiments" / "benchmarks" / "results" / "cpu.md").read_text()
    shown = re.findall(r"\| \**([+\d.]+(?:×|%| s))\**,? \((\S+(?: s)? … \S+(?: s)?)\) \|", (ROOT / page).read_text())
    assert len(shown) >= 5
    for ratio, spread in shown:
        assert f"| {ratio} | {spread} |" in measured


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_files_that_are_named_exist(page):
    for name in re.findall(r"`((?:tests|experiments|docs)/[\w/.-]+)`", page.read_text()):
        assert (ROOT / name).exists() or name.startswith("docs/_build"), name


def test_the_readme_is_read_in_five_minutes():
    assert len((ROOT / "README.md").read_text().split()) <= 900


def test_every_command_is_documented():
    page = (ROOT / "docs" / "command-line.md").read_text()
    for name, command in the_cli().commands.items():
        assert f"hpjax {name}" in page
        for option in command.params:
            if isinstance(option, click.Option):
                assert any(f"`{flag}" in page or f" {flag}" in page for flag in option.opts), (name, option.opts)
