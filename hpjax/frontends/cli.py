"""The command line: plan, run, resume, replay, merge, show, plot, export.

It reads arguments, calls the Python interface and prints. hpjax is imported inside the commands, because ``--help``
must not wait for JAX.
"""

import time
from collections.abc import Callable
from functools import reduce
from pathlib import Path
from typing import TYPE_CHECKING, Any

try:
    import click
except ImportError:
    from hpjax.core.errors import missing

    raise SystemExit(str(missing("the command line", "click"))) from None

from hpjax.core.errors import InputError, RunError
from hpjax.frontends.resumed_command import as_argv, extended, recorded_run, trusted_file
from hpjax.frontends.script import EXIT_USER_ERROR, USER_ERRORS, load_sweep
from hpjax.sweep.shard import Shard

if TYPE_CHECKING:
    from hpjax.results.result import Result
    from hpjax.results.trial import Trial
    from hpjax.studies import BatchScalingResult
    from hpjax.sweep.sweep import Sweep

EXIT_DIFFERS, EXIT_FAILED, EXIT_INTERRUPTED = 1, 3, 130
# The key under which a context holds the command as it was typed.
TYPED = "hpjax.typed"


class _Commands(click.Group):
    """A group of commands that prints a user's error as one message, and has manifests record the command as typed."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        ctx.meta[TYPED] = ["hpjax", *args]
        return super().parse_args(ctx, args)

    def invoke(self, ctx: click.Context) -> Any:
        from hpjax.results.store.manifest import recording_command

        try:
            with recording_command(ctx.meta[TYPED]):
                return super().invoke(ctx)
        except USER_ERRORS as error:
            notes = "".join(f"\n  {note}" for note in getattr(error, "__notes__", []))
            click.echo(f"error: {error}{notes}", err=True)
            ctx.exit(EXIT_USER_ERROR)


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="hpjax")
def main() -> None:
    """Train hundreds of Flax models with different hyperparameters as one compiled program."""


def _answer(result: "Result") -> "BatchScalingResult | None":
    """Returns the answer of the study that a result belongs to, None if it belongs to none."""
    if result.manifest.sweep.study is None:
        return None  # without the import below, which loads JAX and takes a second
    from hpjax.studies.batch_scaling_result import recorded_answer

    return recorded_answer(result)


def _shard(ctx: click.Context, option: click.Parameter, value: str | None) -> Shard | None:
    return None if value is None else Shard.read(value)


def _all(*options: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """Returns one decorator that adds several options or arguments, in their order."""
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
    click.option("--devices-per-lane", type=int, help="Devices that share each lane; 1 by default."),
    click.option("--artifacts", metavar="TRIALS", help="Whose artifacts to keep: best:4, all, or ids such as 0,7."),
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


@main.command()
@_sweep_options
@click.option("--measure", is_flag=True, help="Measure first how many lanes are best at once, and remember it.")
@click.option("--target", help="Compile for devices that are not there: v5e:2x4, h100, ...")
@click.option("--count", type=int, help="With --target: how many of these devices.")
def plan(file: Path, measure: bool, target: str | None, count: int | None, **changes: Any) -> None:
    """Print what the sweep in FILE will do, before anything trains."""
    click.echo(str(load_sweep(file, **changes).plan(measure, target=target, count=count)))


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
    extend: bool,
    distributed: bool,
    **changes: Any,
) -> None:
    """Train the sweep in FILE and print the best trials."""
    begun, quiet = time.perf_counter(), changes.pop("quiet")
    file, here = file.absolute(), Path.cwd()  # before the script runs, which may change the current folder
    if extend and directory is None:
        raise InputError("--extend", True, "needs --dir, the finished run", "Add --dir DIR.")
    if distributed:
        from hpjax.engine.distributed import initialize

        initialize()
    sweep = load_sweep(file, **changes)
    from hpjax.engine.distributed import broadcast_json, is_writer

    if directory is None:
        part = "" if sweep.shard is None else "-shard-{}-of-{}".format(*sweep.shard)
        directory = Path("runs") / f"{file.parent.name}-{time.strftime('%Y%m%d-%H%M%S')}{part}"
    # The name holds the time, which differs between hosts.
    shown = Path(broadcast_json(str(directory)))
    directory = here / shown
    if test:
        _check_test(sweep)
    new = not directory.exists()
    plan = sweep.plan()
    if is_writer():
        click.echo(f"{plan}\n")
    result = _train(sweep, directory, progress=not quiet, extend=extend)
    if not is_writer():
        return
    click.echo(_answer(result) or result.summary(top))
    if test:
        values = ", ".join(f"{name} {value:.4f}" for name, value in result.test().items())
        click.echo(f"trial {result.best.id} on the test split: {values}")
    seconds = time.perf_counter() - begun
    # The compile seconds of a resumed run include those of earlier commands, so they are not part of these.
    compiling = f", {result.compile_seconds:.0f} s of them compiling" if new else ""
    click.echo(f"{seconds:.0f} s in all{compiling}; recorded in {shown}")
    _exit_where_failed(result, directory)


def _exit_where_failed(result: "Result", directory: Path) -> None:
    """Exits with a code of its own where trials failed, and says how they are tried again."""
    if result.failures:
        from hpjax.core.format import count

        many = count(len(result.failures), "trial")
        again = "" if result.manifest.sweep.scheduler else f" To try again what failed: hpjax resume {directory}"
        click.echo(f"error: {many} failed, for the reasons above.{again}", err=True)
        raise SystemExit(EXIT_FAILED)


def _check_test(sweep: "Sweep") -> None:
    """Raises unless the best trial of a sweep can be tested."""
    if sweep.shard is not None:
        raise RunError("--test needs all trials, to test the best: merge the shards, then run FILE --dir OUT --test.")
    if sweep.program.data is None or sweep.program.data.test is None:
        raise RunError(
            "--test needs a test split, and the program's data has none. Write data=hpx.Data(train, valid, test), or "
            "leave --test out."
        )


def _train(sweep: "Sweep", directory: Path, progress: bool, extend: bool) -> "Result":
    """Runs a sweep; where the user interrupts it, says what is recorded and exits."""
    from hpjax.results.store.manifest import MANIFEST

    try:
        return sweep.run(directory, progress=progress, extend=extend)
    except KeyboardInterrupt as interrupt:
        there = (directory / MANIFEST).exists()
        message = f"{interrupt or 'interrupted, without a checkpoint.'} What was found so far: hpjax show {directory}"
        click.echo(message if there else "interrupted before anything was recorded", err=True)
        raise SystemExit(EXIT_INTERRUPTED) from None


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
        raise InputError(f"--{name}", value, "changes a run only together with --extend", "Add --extend.")
    command, options = recorded_run(directory, run, resume)
    if file is None:
        file = trusted_file(directory, options["file"])
    command = extended(command, changes, extend or options["extend"])
    options |= {"file": file, "directory": directory, "quiet": quiet, "distributed": distributed}
    options |= changes | {"extend": extend or options["extend"]}
    with as_argv(command):
        click.get_current_context().invoke(run, **options)


@main.command("merge")
@click.argument("directories", metavar="DIR...", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--out", required=True, type=click.Path(path_type=Path), help="Where to: a new or an empty directory.")
@_top
def merge_shards(directories: tuple[Path, ...], out: Path, top: int) -> None:
    """Join the finished shards of a sweep to one run, and print its best trials."""
    from hpjax.core.format import count
    from hpjax.results.merge import merge
    from hpjax.results.store.rows import Status

    result = merge(directories, out)
    click.echo(result.summary(top))
    others = int((result.statuses == Status.OTHER_SHARD).sum())
    more = f"; {count(others, 'trial')} are in other shards: merge {out} with them" if others else ""
    click.echo(f"recorded in {out}{more}")


def _trial(result: "Result", directory: Path, id: int | None) -> "Trial":
    """Returns the trial that ``--trial`` names, the best one where it is left out."""
    if id is None:
        return result.best
    try:
        return result[id]
    except InputError as error:
        raise InputError("--trial", id, error.allowed, f"Look up its id: hpjax show {directory}.") from None


@main.command()
@_sweep_options
@_directory
@click.option("--trial", type=int, help="Its id; by default the best one's.")
def replay(file: Path, directory: Path, trial: int | None, **changes: int | None) -> None:
    """Train one trial of the run in DIR again, alone; exit code 1 where a bit differs."""
    from hpjax.results.result import load

    chosen = _trial(load(directory), directory, trial)
    again = load_sweep(file, **changes).replay(chosen)
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
    click.echo((by is None and _answer(result)) or result.summary(top, by))


@main.command()
@_directory
@click.option("--out", type=click.Path(path_type=Path), help="The folder of the pictures; by default DIR.")
def plot(directory: Path, out: Path | None) -> None:
    """Draw a run: its curves, the objective against hyperparameters, rungs, lineage, or a batch-scaling study."""
    from hpjax.results.picture_file import INSTEAD, save
    from hpjax.results.plot import pictures
    from hpjax.results.result import load
    from hpjax.results.store.files import writing_for_user

    result = load(directory)
    figures, answer = pictures(result), _answer(result)
    if answer is not None:
        figures["scaling"] = answer.plot()
    folder = out or directory
    with writing_for_user(folder, INSTEAD):
        folder.mkdir(parents=True, exist_ok=True)
    for name, figure in figures.items():
        save(figure, folder / f"{name}.png")
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
@click.option("--name", help="With --optuna: the name of the study, hpjax by default.")
@click.option("--out", type=click.Path(path_type=Path), help="The file; by default DIR/results.csv or DIR/optuna.log.")
def export(
    directory: Path, kind: str, params: Path | None, trial: int | None, name: str | None, out: Path | None
) -> None:
    """Write the trials of a run, or the parameters of one, for other tools."""
    from hpjax.results.result import load

    result = load(directory)
    if params is not None:
        _trial(result, directory, trial).export(params)
        click.echo(str(params))
        return
    if trial is not None:
        raise InputError("--trial", trial, "needs --params, the file to write", "Add --params best.safetensors.")
    if name is not None and kind != "optuna":
        raise InputError("--name", name, "needs --optuna, since it names the study", "Add --optuna.")
    out = out or directory / ("results.csv" if kind == "csv" else "optuna.log")
    if kind == "csv":
        result.to_csv(out)
    else:
        result.to_optuna(out, name or "hpjax")
    click.echo(str(out))
