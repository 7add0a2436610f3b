"""Commands that read a run: show, plot, export."""

from pathlib import Path

import click

from hpjax.core.errors import InputError
from hpjax.frontends.options import answer_of, directory_argument, top_option, trial_of


@click.command()
@directory_argument
@top_option
@click.option("--sort", metavar="METRIC", help="Sort by this metric, the highest first, instead of the objective.")
@click.option("--lowest", is_flag=True, help="With --sort: the lowest first.")
def show(directory: Path, top: int, sort: str | None, lowest: bool) -> None:
    """Print the best trials of a run, finished or still running; of a batch-scaling study its points."""
    from hpjax.core.objective import maximize, minimize
    from hpjax.results.result import load

    by, result = None if sort is None else minimize(sort) if lowest else maximize(sort), load(directory)
    click.echo((by is None and answer_of(result)) or result.summary(top, by))


@click.command()
@directory_argument
@click.option("--out", type=click.Path(path_type=Path), help="The folder of the pictures; by default DIR.")
def plot(directory: Path, out: Path | None) -> None:
    """Draw a run: its curves, the objective against hyperparameters, rungs, lineage, or a batch-scaling study."""
    from hpjax.results.picture_file import INSTEAD, save
    from hpjax.results.plot import pictures
    from hpjax.results.result import load
    from hpjax.results.store.files import writing_for_user

    result = load(directory)
    figures, answer = pictures(result), answer_of(result)
    if answer is not None:
        figures["scaling"] = answer.plot()
    folder = out or directory
    with writing_for_user(folder, INSTEAD):
        folder.mkdir(parents=True, exist_ok=True)
    for name, figure in figures.items():
        save(figure, folder / f"{name}.png")
        click.echo(str(folder / f"{name}.png"))


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
