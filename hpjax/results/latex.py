"""Trials as a table of LaTeX, for papers."""

import math
from collections.abc import Sequence

import numpy as np

from hpjax.core.errors import InputError, check_int, did_you_mean
from hpjax.core.format import show
from hpjax.results.store.rows import Status
from hpjax.results.table import TrialTable

SPECIAL = {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    **{character: f"\\{character}" for character in "&%$#_{}"},
}
# Digits of the standard deviation, to which the mean is rounded, too; and of a mean that has none.
DIGITS, ALONE = 2, 4


def latex(table: TrialTable, columns: Sequence[str] | None = None, top: int = 10, best: str | None = "bold") -> str:
    """Returns the best trials as a ``tabular`` with the rules of booktabs; see ``Result.latex``."""
    known = ["trial", *table.names, *table.metrics, "status", "step"]
    chosen = [*table.varied, table.objective.metric] if columns is None else list(columns)
    for name in chosen:
        if name not in known:
            raise InputError("latex.columns", name, "must be a column of the table", did_you_mean(name, known))
    if not chosen:
        raise InputError("latex.columns", [], "must name a column", 'Write columns=["trial", "valid/loss"].')
    if best not in ("bold", None):
        raise InputError("latex.best", best, 'must be "bold" or None', "Leave it out for bold.")
    trials = table.ranking[: check_int("latex.top", top)]
    last = {name: table.last(name) for name in table.metrics}
    numbers = {*table.metrics, "trial", "step", *(name for name in table.names if table.scales[name] != "category")}
    lines = [
        rf"\begin{{tabular}}{{{''.join('r' if name in numbers else 'l' for name in chosen)}}}",
        r"\toprule",
        " & ".join(map(escaped, chosen)) + r" \\",
        r"\midrule",
    ]
    for rank, trial in enumerate(trials):
        cells = []
        for name in chosen:
            if name in last:
                cell = with_deviation(last[name][trial].tolist())
                bold = best == "bold" and rank == 0 and name == table.objective.metric
                cells.append(rf"$\mathbf{{{cell}}}$" if bold else f"${cell}$")
            else:
                cells.append(_cell(table, name, trial))
        lines.append(" & ".join(cells) + r" \\")
    return "\n".join([*lines, r"\bottomrule", r"\end{tabular}"]) + "\n"


def _cell(table: TrialTable, name: str, trial: int) -> str:
    """Returns what a trial has in a column that is no metric."""
    if name == "trial":
        return str(trial)
    if name == "step":
        return str(int(table.lane_step[trial].min()))
    if name == "status":
        return Status(table.statuses[trial]).text
    if name not in table.hparams[trial]:
        return "--"
    value = table.hparams[trial][name]
    return f"${power(show(value))}$" if _is_number(value) else escaped(show(value))


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def with_deviation(values: Sequence[float]) -> str:
    """Returns the mean of replicates and, of several, their standard deviation, as mathematics of LaTeX.

    Example:
      >>> with_deviation([0.1234, 0.1256]), with_deviation([0.000123456])
      ('0.1245 \\\\pm 0.0016', '1.235 \\\\times 10^{-4}')
    """
    mean = float(np.mean(values))
    if not math.isfinite(mean):
        return r"\mathrm{nan}"
    spread = float(np.std(values, ddof=1)) if len(values) > 1 else 0.0
    size = max(abs(mean), spread)
    if size == 0:
        return "0"
    exponent = math.floor(math.log10(size))
    shift = exponent if not -3 <= exponent < 4 else 0
    mean, spread = mean / 10.0**shift, spread / 10.0**shift
    if spread > 0:
        places = max(DIGITS - 1 - math.floor(math.log10(spread)), 0)
        text = rf"{mean:.{places}f} \pm {spread:.{places}f}"
    else:
        places = ALONE - 1 - math.floor(math.log10(abs(mean)))
        text = f"{mean:.{max(places, 0)}f}"
    if not shift:
        return text
    return rf"{f'({text})' if spread > 0 else text} \times 10^{{{shift}}}"


def power(number: str) -> str:
    r"""Returns a number as LaTeX has it: ``1e-5`` as ``1 \times 10^{-5}``."""
    mantissa, e, exponent = number.partition("e")
    return rf"{mantissa} \times 10^{{{int(exponent)}}}" if e and exponent.lstrip("+-").isdigit() else number


def escaped(text: str) -> str:
    """Returns a text whose characters LaTeX takes as they are.

    Example:
      >>> print(escaped("weight_decay & 5%"))
      weight\\_decay \\& 5\\%
    """
    return "".join(SPECIAL.get(character, character) for character in text)
