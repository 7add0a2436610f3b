"""Commands that read runs: show, report, ls, plot, export."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from hpjax.core.errors import InputError
from hpjax.frontends.options import answer_of, directory_argument, top_option, trial_of

if TYPE_CHECKING:
    from hpjax.results.result import Result
    from hpjax.results.style import Width
    from hpjax.results.trial import Trial


@click.command()
@directory_argument
@top_option
@click.option("--sort", metavar="METRIC", help="Sort by this metric, the highest first, instead of the objective.")
@click.option("--lowest", is_flag=True, help="With --sort: the lowest first.")
@click.option("--columns", metavar="NAMES", help="Only these columns: trial,learning_rate,valid/loss")
@click.option("--wide", is_flag=True, help="All columns, where the terminal is too narrow for them.")
@click.option("--json", "as_json", is_flag=True, help="As JSON, for scripts.")
def show(
    directory: Path, top: int, sort: str | None, lowest: bool, columns: str | None, wide: bool, as_json: bool
) -> None:
    """Print the best trials of a run, finished or still running; of a study its answer."""
    from hpjax.core.objective import maximize, minimize
    from hpjax.results.result import load

    by, result = None if sort is None else minimize(sort) if lowest else maximize(sort), load(directory)
    if as_json:
        click.echo(json.dumps(as_builtins(result, result.top(top, by)), indent=1))
    elif by is None and columns is None and (answer := answer_of(result)) is not None:
        click.echo(str(answer))
    else:
        table = result.rows(top, by)
        chosen = table if columns is None else table.of([name.strip() for name in columns.split(",")])
        metric = (by or result.objective).metric
        from hpjax.frontends.printing import print_table

        print_table(chosen, ["trial", metric, *result.varied, "status", "step", *result.metrics], wide or bool(columns))


def as_builtins(result: "Result", trials: "Sequence[Trial]") -> dict[str, Any]:
    """Returns a result as JSON has it; numbers that are not finite are null."""
    from hpjax.core.records import finite_or_none

    objective, statuses = result.objective, result.statuses.tolist()
    return {
        "objective": {"metric": objective.metric, "direction": objective.direction},
        "trials": len(result),
        "statuses": {status: statuses.count(status) for status in sorted({*statuses})},
        "best": [
            {
                "trial": trial.id,
                "hparams": trial.hparams,
                "metrics": finite_or_none(trial.metrics),
                "status": trial.status,
                "step": trial.step,
            }
            for trial in trials
        ],
    }


@click.command()
@directory_argument
@click.option("--out", type=click.Path(path_type=Path), help="The file; by default DIR/report.html.")
@click.option("--live", is_flag=True, help="Serve it on this machine while the run goes on, until Ctrl-C.")
@click.option("--port", type=click.IntRange(1, 65535), help="With --live: the port; by default any that is free.")
def report(directory: Path, out: Path | None, live: bool, port: int | None) -> None:
    """Write a page that shows a run: its trials, curves, hyperparameters, and what to doubt; opens in any browser."""
    from hpjax.results.result import load

    if live:
        if out is not None:
            raise InputError("--out", str(out), "is for a file, and --live serves none", "Leave one of them out.")
        serve(directory, port or 0)
        return
    if port is not None:
        raise InputError("--port", port, "needs --live", "Add --live.")
    out = out or directory / "report.html"
    load(directory).report(out)
    click.echo(str(out))


def serve(directory: Path, port: int) -> None:
    """Serves the report of a run until Ctrl-C."""
    from hpjax.results.report.server import ReportServer
    from hpjax.results.result import load

    try:
        server = ReportServer(lambda: load(directory).report(), port)
    except OSError as error:
        why = error.strerror or error
        raise InputError("--port", port, f"must be free: {why}", "Leave it out for any that is.") from None
    with server:
        server.read().html()  # so that what keeps it from being shown is said here; the first page shows what was read
        try:
            click.echo(f"{server.address}\nfor you alone; ends with Ctrl-C")
            server.serve_forever()
        except KeyboardInterrupt:
            click.echo("ended", err=True)


@click.command("ls")
@click.argument("directory", metavar="DIR", type=click.Path(path_type=Path, exists=True, file_okay=False))
@click.option("--wide", is_flag=True, help="All columns, where the terminal is too narrow for them.")
def list_runs(directory: Path, wide: bool) -> None:
    """List the run directories in DIR and below: how far each is, and its best value."""
    from hpjax.frontends.printing import print_table
    from hpjax.results.runs import runs_below

    table = runs_below(directory)
    print_table(table, ["run", "status", "best"], wide)


@click.command()
@directory_argument
@click.option("--out", type=click.Path(path_type=Path), help="The folder of the pictures; by default DIR.")
@click.option(
    "--format",
    "formats",
    type=click.Choice(["png", "pdf", "svg"]),
    multiple=True,
    default=["png"],
    help="Of the pictures, png by default; may be repeated.",
)
@click.option(
    "--width",
    type=click.Choice(["single", "double"]),
    default="double",
    help="Of the pictures, in columns of a paper: 3.3 or 6.8 inches; double by default.",
)
def plot(directory: Path, out: Path | None, formats: tuple[str, ...], width: "Width") -> None:
    """Draw a run: its curves, its objective against hyperparameters and cost, a race, a population, or a study."""
    from hpjax.results.picture_file import INSTEAD, save
    from hpjax.results.plot import pictures
    from hpjax.results.result import load
    from hpjax.results.store.files import writing_for_user

    result = load(directory)
    figures, answer = pictures(result, width), answer_of(result)
    if answer is not None:
        from hpjax.studies.recorded import PICTURES

        figures[PICTURES[type(answer)]] = answer.plot(width=width)
    folder = out or directory
    with writing_for_user(folder, INSTEAD):
        folder.mkdir(parents=True, exist_ok=True)
    for name, figure in figures.items():
        for kind in formats:
            save(figure, folder / f"{name}.{kind}")
            click.echo(str(folder / f"{name}.{kind}"))


@click.command()
@directory_argument
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
        trial_of(result, directory, trial).export(params)
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
