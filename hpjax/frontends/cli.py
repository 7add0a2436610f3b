"""The command line: plan, run, resume, replay, merge, and what reads runs.

It reads arguments, calls the Python interface and prints. hpjax is imported inside the commands, because ``--help``
must not wait for JAX.
"""

import os
import shlex
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

try:
    import click
except ImportError:
    from hpjax.core.errors import missing

    raise SystemExit(str(missing("the command line", "click"))) from None

from hpjax.core.errors import InputError, RunError
from hpjax.frontends.options import answer_of, combined, directory_argument, top_option, trial_of
from hpjax.frontends.reading import export, list_runs, plot, report, show
from hpjax.frontends.resumed_command import as_argv, extended, recorded_run, trusted_file
from hpjax.frontends.script import EXIT_USER_ERROR, USER_ERRORS, load_sweep
from hpjax.sweep.shard import Shard

if TYPE_CHECKING:
    from hpjax.results.result import Result
    from hpjax.results.trackers import Tracker
    from hpjax.sweep.sweep import Sweep

# As of a program that is ended by Ctrl-C, and by writing to what nobody reads.
EXIT_DIFFERS, EXIT_FAILED, EXIT_INTERRUPTED, EXIT_CLOSED = 1, 3, 130, 141
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
        except BrokenPipeError:  # whoever reads the output has enough, as in hpjax show DIR | head
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # or the interpreter would say so at its end
            ctx.exit(EXIT_CLOSED)
        except USER_ERRORS as error:
            notes = "".join(f"\n  {note}" for note in getattr(error, "__notes__", []))
            click.echo(f"error: {error}{notes}", err=True)
            ctx.exit(EXIT_USER_ERROR)


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="hpjax")
def main() -> None:
    """Train hundreds of Flax models with different hyperparameters as one compiled program."""


def _shard(ctx: click.Context, option: click.Parameter, value: str | None) -> Shard | None:
    return None if value is None else Shard.read(value)


_sweep_options = combined(
    click.argument("file", type=click.Path(path_type=Path)),
    click.option("--trials", type=int, help="How many points to try."),
    click.option("--replicates", type=int, help="Seeds a trial."),
    click.option("--seed", type=int, help="Decides every random number."),
    click.option("--steps", type=int, help="Optimizer steps of every trial."),
    click.option("--eval-every", type=int, help="Steps between evaluations."),
    click.option("--width", type=int, help="Lanes that one device computes at once."),
    click.option("--devices", type=int, help="Local devices to use; all by default."),
    click.option("--devices-per-lane", type=int, help="Devices that share each lane; 1 by default."),
    click.option("--partition", type=click.Choice(["fsdp"]), help="Split large arrays of the state among them."),
    click.option("--artifacts", metavar="TRIALS", help="Whose artifacts to keep: best:4, all, or ids such as 0,7."),
    click.option("--shard", metavar="I/N", callback=_shard, help="Only this of N parts of the trials: 1/4 … 4/4."),
)
_run_options = combined(
    click.option("--extend", is_flag=True, help="Add trials or steps to a finished run."),
    click.option("--quiet", is_flag=True, help="Show no progress."),
    click.option("--distributed", is_flag=True, help="Run as one of several hosts that share their devices."),
)
_track_options = combined(
    click.option(
        "--track",
        multiple=True,
        metavar="KIND:WHERE",
        help="Also log to tensorboard:FOLDER, wandb:PROJECT, mlflow:EXPERIMENT or jsonl:FILE; may be repeated.",
    ),
    click.option("--track-runs", metavar="RUNS", help="With --track: which trials become runs: best:20, all or sweep."),
)


@main.command()
@_sweep_options
@click.option(
    "--measure",
    is_flag=True,
    help="Measure first how many lanes are best at once, and remember it; count what the devices of a lane exchange.",
)
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
@top_option
@click.option("--test", is_flag=True, help="Evaluate the best trial on the test split, once, at the end.")
@_track_options
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
    trackers = _trackers(changes.pop("track"), changes.pop("track_runs"))
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
    result = _train(sweep, directory, progress=not quiet, extend=extend, trackers=trackers)
    if not is_writer():
        return
    click.echo(answer_of(result) or result.summary(top))
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


def _trackers(given: tuple[str, ...], runs: str | None) -> "list[Tracker]":
    """Returns the trackers that ``--track`` names."""
    if not given:
        if runs is not None:
            raise InputError("--track-runs", runs, "needs --track", "Add --track tensorboard:logs.")
        return []
    from hpjax.results.trackers.named import named

    return [named(each, runs) for each in given]


def _train(sweep: "Sweep", directory: Path, **asked: Any) -> "Result":
    """Runs a sweep, as asked; where the user interrupts it, says what is recorded and exits."""
    from hpjax.results.store.manifest import MANIFEST

    try:
        return sweep.run(directory, **asked)
    except KeyboardInterrupt as interrupt:
        there = (directory / MANIFEST).exists()
        message = f"{interrupt or 'interrupted, without a checkpoint.'} What was found so far: hpjax show {directory}"
        click.echo(message if there else "interrupted before anything was recorded", err=True)
        raise SystemExit(EXIT_INTERRUPTED) from None


@main.command()
@directory_argument
@click.option("--file", type=click.Path(path_type=Path), help="The sweep's file, where it moved.")
@click.option("--trials", type=int, help="With --extend: how many points to have tried in all.")
@click.option("--steps", type=int, help="With --extend: optimizer steps of every trial in all.")
@_track_options
@_run_options
def resume(
    directory: Path,
    file: Path | None,
    extend: bool,
    trials: int | None,
    steps: int | None,
    **how: Any,
) -> None:
    """Go on with the run in DIR, as it was begun by hpjax run; or extend it."""
    changes = {name: value for name, value in (("trials", trials), ("steps", steps)) if value is not None}
    for name, value in changes.items() if not extend else ():
        raise InputError(f"--{name}", value, "changes a run only together with --extend", "Add --extend.")
    command, options = recorded_run(directory, run, resume)
    if file is None:
        file = trusted_file(directory, options["file"])
    command = extended(command, changes, extend or options["extend"])
    if options["track"] and not how["track"]:
        # A run directory is data that anyone may have written, and must not have any file written elsewhere.
        more = " ".join(f"--track {shlex.quote(each)}" for each in options["track"])
        click.echo(f"not tracked as before, unless you say so again: {more}", err=True)
    options |= {"file": file, "directory": directory, **how}
    options |= changes | {"extend": extend or options["extend"]}
    with as_argv(command):
        click.get_current_context().invoke(run, **options)


@main.command("merge")
@click.argument("directories", metavar="DIR...", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--out", required=True, type=click.Path(path_type=Path), help="Where to: a new or an empty directory.")
@top_option
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


@main.command()
@_sweep_options
@directory_argument
@click.option("--trial", type=int, help="Its id; by default the best one's.")
def replay(file: Path, directory: Path, trial: int | None, **changes: int | None) -> None:
    """Train one trial of the run in DIR again, alone; exit code 1 where a bit differs."""
    from hpjax.results.result import load

    chosen = trial_of(load(directory), directory, trial)
    again = load_sweep(file, **changes).replay(chosen)
    click.echo(str(again))
    raise SystemExit(0 if again.agrees else EXIT_DIFFERS)


for reading in (show, report, list_runs, plot, export):
    main.add_command(reading)
