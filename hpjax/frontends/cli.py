"""The command line: plan, run, resume, replay, merge, show, plot, export. Argument parsing only."""

import dataclasses
import importlib.util
import shlex
import sys
import time
import traceback
from collections.abc import Callable
from functools import reduce
from pathlib import Path
from typing import TYPE_CHECKING, Any

try:
    import click
except ImportError:
    raise SystemExit("the command line needs click: pip install 'hpjax[cli]'") from None

from hpjax.core.errors import InputError, ProgramError, RunError, UnknownHyperparameterError
from hpjax.sweep.shard import Shard

if TYPE_CHECKING:
    from hpjax.results.result import Result
    from hpjax.studies import BatchScaling
    from hpjax.sweep.sweep import Sweep

# hpjax itself is imported inside the commands: --help must not wait for JAX.
USER_ERRORS = (InputError, ProgramError, RunError, UnknownHyperparameterError, ImportError, OSError)
EXIT_DIFFERS, EXIT_USER_ERROR, EXIT_INTERRUPTED = 1, 2, 130


class _Commands(click.Group):
    """A group of commands whose user errors come as one message without a traceback."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except USER_ERRORS as error:
            notes = "".join(f"\n  {note}" for note in getattr(error, "__notes__", []))
            click.echo(f"error: {error}{notes}", err=True)
            ctx.exit(EXIT_USER_ERROR)


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="hpjax")
def main() -> None:
    """Train hundreds of Flax models with different hyperparameters as one compiled program."""


def _study(result: "Result") -> "BatchScaling | None":
    """The batch-scaling study that a result is of; of others JAX is not imported for nothing."""
    if "study" not in result.manifest.sweep.program:
        return None
    from hpjax.studies.batch_scaling_result import recorded

    return recorded(result)


def _shard(ctx: click.Context, option: click.Parameter, value: str | None) -> Shard | None:
    return None if value is None else Shard.read(value)


def _all(*options: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """One decorator of several options or arguments, in their order."""
    return lambda command: reduce(lambda done, option: option(done), reversed(options), command)


_sweep_options = _all(
    click.argument("file", type=click.Path(path_type=Path)),
    click.option("--trials", type=int, help="How many points to try."),
    click.option("--replicates", type=int, help="Seeds a trial."),
    click.option("--seed", type=int, help="Decides every random number."),
    click.option("--steps", type=int, help="Optimizer steps of every trial."),
    click.option("--eval-every", type=int, help="Steps between evaluations."),
    click.option("--width", type=int, help="Lanes that one device computes at once."),
    click.option("--devices", type=int, help="Local devices to use; all by default."),
    click.option("--shard", metavar="I/N", callback=_shard, help="Only this of N parts of the trials: 1/4 … 4/4."),
)
_run_options = _all(
    click.option("--extend", is_flag=True, help="Add trials or steps to a finished run."),
    click.option("--quiet", is_flag=True, help="Show no progress."),
    click.option("--distributed", is_flag=True, help="Run as one of several hosts that share their devices."),
)
_directory = click.argument("directory", metavar="DIR", type=click.Path(path_type=Path))
_top = click.option(
    "--top", type=click.IntRange(1), default=10, show_default=True, help="How many of the best trials to print."
)


def _load(file: Path, **changes: Any) -> "Sweep":
    """The ``sweep`` of a Python file, with what the command line changes."""
    from hpjax.engine.machine import setup
    from hpjax.sweep.sweep import Sweep

    setup()

    if not file.is_file():
        raise InputError("FILE", str(file), "must be a Python file", f"From here it means {file.absolute()}.")
    sys.path.insert(0, str(file.parent.absolute()))
    spec = importlib.util.spec_from_file_location("hpjax_sweep_file", file.absolute())
    if spec is None or spec.loader is None:
        raise InputError("FILE", str(file), "must be a Python file", "Its name must end in .py.")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    try:
        spec.loader.exec_module(module)
    except USER_ERRORS as error:
        from hpjax.core.user_code import user_lines

        error.add_note("\n  ".join(f"at {line}" for line in user_lines(error)))
        raise
    except Exception as error:
        # The user's own bug: a traceback that begins in their file.
        trace = error.__traceback__
        while trace is not None and trace.tb_frame.f_code.co_filename != str(file.absolute()):
            trace = trace.tb_next
        traceback.print_exception(type(error), error, trace)
        raise SystemExit(EXIT_USER_ERROR) from None
    sweep = getattr(module, "sweep", None)
    if not isinstance(sweep, Sweep):
        raise InputError(
            "FILE",
            str(file),
            "must define sweep" if sweep is None else f"defines sweep as {type(sweep).__name__}, not hpx.Sweep",
            "Write sweep = hpx.Sweep(program, space, trials=64) at its top level.",
        )
    of_program = {name: changes.pop(name) for name in ("steps", "eval_every")}
    program = dataclasses.replace(sweep.program, **{n: v for n, v in of_program.items() if v is not None})
    return dataclasses.replace(sweep, program=program, **{n: v for n, v in changes.items() if v is not None})


@main.command()
@_sweep_options
@click.option("--measure", is_flag=True, help="Measure first how many lanes are best at once, and remember it.")
def plan(file: Path, measure: bool, **changes: Any) -> None:
    """Print what the sweep in FILE will do, before anything trains."""
    click.echo(str(_load(file, **changes).plan(measure)))


@main.command()
@_sweep_options
@click.option(
    "--dir", "directory", type=click.Path(path_type=Path), help="Run directory; by default a new one in runs/."
)
@_top
@click.option("--test", is_flag=True, help="Evaluate the best trial on the test split, once, at the end.")
@_run_options
def run(
    file: Path,
    directory: Path | None,
    top: int,
    test: bool,
    quiet: bool,
    extend: bool,
    distributed: bool,
    **changes: Any,
) -> None:
    """Train the sweep in FILE and print the best trials."""
    begun = time.perf_counter()
    if extend and directory is None:
        raise InputError("--extend", True, "needs --dir, the finished run", "Name it.")
    if distributed:
        from hpjax.engine.distributed import initialize

        initialize()
    sweep = _load(file, **changes)
    from hpjax.engine.distributed import broadcast_json, is_writer
    from hpjax.results.store.manifest import MANIFEST

    if directory is None:
        part = "" if sweep.shard is None else "-shard-{}-of-{}".format(*sweep.shard)
        directory = Path("runs") / f"{file.absolute().parent.name}-{time.strftime('%Y%m%d-%H%M%S')}{part}"
    directory = Path(broadcast_json(str(directory)))
    if test and sweep.shard is not None:
        raise RunError("--test needs all trials, to test the best: merge the shards, then run FILE --dir OUT --test.")
    if test and (sweep.program.data is None or sweep.program.data.test is None):
        raise RunError("--test needs a test split, and the program's data has none.")
    new = not directory.exists()
    plan = sweep.plan()
    if is_writer():
        click.echo(f"{plan}\n")
    try:
        result = sweep.run(directory, progress=not quiet, extend=extend)
    except KeyboardInterrupt as interrupt:
        there = (directory / MANIFEST).exists()
        told = f"{interrupt or 'interrupted, without a checkpoint.'} What was found so far: hpjax show {directory}"
        click.echo(told if there else "interrupted before anything was recorded", err=True)
        raise SystemExit(EXIT_INTERRUPTED) from None
    if not is_writer():
        return
    click.echo(_study(result) or result.summary(top))
    if test:
        values = ", ".join(f"{name} {value:.4f}" for name, value in result.test().items())
        click.echo(f"trial {result.best.id} on the test split: {values}")
    seconds = time.perf_counter() - begun
    compiling = f", {result.compile_seconds:.0f} s of them compiling" if new else ""  # else before, too
    click.echo(f"{seconds:.0f} s in all{compiling}; recorded in {directory}")


@main.command()
@_directory
@click.option("--file", type=click.Path(path_type=Path), help="The sweep's file, where it moved.")
@click.option("--trials", type=int, help="With --extend: how many points to have tried in all.")
@click.option("--steps", type=int, help="With --extend: optimizer steps of every trial in all.")
@_run_options
def resume(
    directory: Path,
    file: Path | None,
    extend: bool,
    trials: int | None,
    steps: int | None,
    quiet: bool,
    distributed: bool,
) -> None:
    """Go on with the run in DIR, as it was begun by hpjax run; or extend it."""
    changes = {name: value for name, value in (("trials", trials), ("steps", steps)) if value is not None}
    for name, value in changes.items() if not extend else ():
        raise InputError(f"--{name}", value, "changes a run only together with --extend", "Add that.")
    command, options = _recorded_command(directory)
    if file is None:
        file = _trusted(directory, options["file"])
    given = [word for name, value in changes.items() for word in (f"--{name}", str(value))]
    sys.argv = [*command, *given, *(["--extend"] if extend and not options["extend"] else [])]  # for the manifest
    options |= {"file": file, "directory": directory, "quiet": quiet, "distributed": distributed}
    options |= changes | {"extend": extend or options["extend"]}
    click.get_current_context().invoke(run, **options)


def _recorded_command(directory: Path) -> tuple[list[str], dict[str, Any]]:
    """The command that began the run in a directory, and its options."""
    from hpjax.results.store.manifest import read_manifest

    command = list(read_manifest(directory).command)
    if command[:1] not in (["hpjax"], ["__main__.py"]) or command[1:2] != ["run"]:
        if command[1:2] == ["merge"]:
            raise RunError(f"{str(directory)!r} was merged, and is finished. Look at it with hpjax show.")
        raise RunError(
            f"{str(directory)!r} was not begun by hpjax run, but by {shlex.join(command)!r}. Start that again: it "
            "goes on from the last checkpoint."
        )
    try:
        options = run.make_context("run", command[2:]).params
    except (click.ClickException, click.exceptions.Exit):
        options = {}
    if "file" not in options:
        raise RunError(f"the command in {directory / 'manifest.json'} cannot be read: {shlex.join(command)!r}.")
    return command, options


def _trusted(directory: Path, file: Path) -> Path:
    """The sweep's file as a run directory names it. A directory is data: it must not have any file executed."""
    here, wanted = Path.cwd().resolve(), file.resolve()
    if not wanted.is_relative_to(here) or wanted.is_relative_to(directory.resolve()):
        raise InputError(
            "--file",
            str(file),
            "is what the run directory names, and only files below the current folder are taken from there",
            "If it is the sweep that you began, say so: --file FILE.",
        )
    return file


@main.command()
@click.argument("directories", metavar="DIR...", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--out", required=True, type=click.Path(path_type=Path), help="Where to: a new or an empty directory.")
@_top
def merge(directories: tuple[Path, ...], out: Path, top: int) -> None:
    """Join the finished shards of a sweep to one run, and print its best trials."""
    from hpjax.core.format import count
    from hpjax.results import merge as merging

    result = merging.merge(directories, out)
    click.echo(result.summary(top))
    elsewhere = int((result.statuses == "elsewhere").sum())
    more = f"; {count(elsewhere, 'trial')} are elsewhere: merge {out} with the other shards" if elsewhere else ""
    click.echo(f"recorded in {out}{more}")


@main.command()
@_sweep_options
@_directory
@click.option("--trial", type=int, help="Its id; by default the best one's.")
def replay(file: Path, directory: Path, trial: int | None, **changes: int | None) -> None:
    """Train one trial of the run in DIR again, alone; exit code 1 where a bit differs."""
    from hpjax.results.result import load

    result = load(directory)
    again = _load(file, **changes).replay(result.best if trial is None else result[trial])
    click.echo(str(again))
    raise SystemExit(0 if again.agrees else EXIT_DIFFERS)


@main.command()
@_directory
@_top
@click.option("--sort", metavar="METRIC", help="Sort by this metric, the highest first, instead of the objective.")
@click.option("--lowest", is_flag=True, help="With --sort: the lowest first.")
def show(directory: Path, top: int, sort: str | None, lowest: bool) -> None:
    """Print the best trials of a run, finished or still running; of a batch-scaling study its points."""
    from hpjax.core.objective import maximize, minimize
    from hpjax.results.result import load

    by, result = None if sort is None else minimize(sort) if lowest else maximize(sort), load(directory)
    click.echo((by is None and _study(result)) or result.summary(top, by))


@main.command()
@_directory
@click.option("--out", type=click.Path(path_type=Path), help="The folder of the pictures; by default DIR.")
def plot(directory: Path, out: Path | None) -> None:
    """Draw a run: its curves, the objective against hyperparameters, rungs, lineage, or a batch-scaling study."""
    from hpjax.results.plot import pictures
    from hpjax.results.result import load

    result = load(directory)
    figures, study = pictures(result), _study(result)
    if study is not None:
        figures["scaling"] = study.plot()
    folder = out or directory
    folder.mkdir(parents=True, exist_ok=True)
    for name, figure in figures.items():
        figure.savefig(folder / f"{name}.png", dpi=150)
        click.echo(str(folder / f"{name}.png"))


@main.command()
@_directory
@click.option(
    "--csv", "kind", flag_value="csv", default=True, help="As comma-separated values, a row a trial; the default."
)
@click.option("--optuna", "kind", flag_value="optuna", help="As a journal of Optuna, which optuna-dashboard opens.")
@click.option(
    "--params", type=click.Path(path_type=Path), help="Parameters of one trial instead, to .safetensors or .msgpack."
)
@click.option("--trial", type=int, help="With --params: its id; by default the best one's.")
@click.option("--out", type=click.Path(path_type=Path), help="The file; by default DIR/results.csv or DIR/optuna.log.")
def export(directory: Path, kind: str, params: Path | None, trial: int | None, out: Path | None) -> None:
    """Write the trials of a run, or the parameters of one, for other tools."""
    from hpjax.results.result import load

    result = load(directory)
    if params is not None:
        (result.best if trial is None else result[trial]).export(params)
        click.echo(str(params))
        return
    if trial is not None:
        raise InputError("--trial", trial, "needs --params, where it goes", "Add --params best.safetensors.")
    out = out or directory / ("results.csv" if kind == "csv" else "optuna.log")
    (result.to_csv if kind == "csv" else result.to_optuna)(out)
    click.echo(str(out))
