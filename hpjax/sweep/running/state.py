"""Whether a cut is one of the sweep that shall go on from it: whoever wrote it, it is checked before use."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from hpjax.core.errors import RunError
from hpjax.data.stream import Position
from hpjax.results.store.checkpoints import Cut
from hpjax.results.store.manifest import SweepRecord
from hpjax.results.store.rows import STATUSES
from hpjax.results.store.validation import Field, check, is_real, is_whole, list_of

# Arrays of a wave that have no row for each lane.
OF_WAVE = ("lost", "stream")
REACHED = {"round", "step", "done", "spared"}
_COUNT = Field(is_whole, "a whole number, 0 or more")
WAVE = {"step": _COUNT, "evaluations": _COUNT, "finished": Field(lambda v: isinstance(v, bool), "true or false")}


def _pairs(value: Any) -> bool:
    return isinstance(value, list) and all(
        isinstance(each, list) and len(each) == 2 and is_whole(each[0]) and is_whole(each[1], 1) for each in value
    )


def check_cut(cut: Cut, sweep: SweepRecord) -> None:
    """Makes sure that a cut has what the sweep of a manifest needs of it, all but the states of lanes.

    Raises:
      RunError: it has not.
    """
    trials, replicates, rounds = sweep.trials, sweep.replicates, len(sweep.rounds)
    about = {
        "reached": Field(lambda v: isinstance(v, dict) and v.keys() == REACHED, f"of {', '.join(sorted(REACHED))}"),
        "reached.round": Field(lambda v: is_whole(v, 0, rounds - 1), f"a whole number, 0 … {rounds - 1}"),
        "reached.step": _COUNT,
        "reached.done": Field(lambda v: is_whole(v, 0, 2**63 - 1), "a whole number, 0 or more"),
        "reached.spared": Field(lambda v: is_whole(v, 0, 2**63 - 1), "a whole number, 0 or more"),
        "narrowed": Field(_pairs, "a list of groups and their widths"),
        "waves": Field(list_of(is_whole), "a list of numbers"),
        "seconds": Field(lambda v: is_real(v) and v >= 0, "a number, 0 or more"),
        "clones": _COUNT,
        "parts": Field(lambda v: isinstance(v, dict), "of lanes, standing and waves"),
    }
    check("its JSON", cut.about, about)
    numbers = cut.about["waves"]
    names = [f"wave-{number}" for number in numbers]
    if not numbers or numbers != [*range(numbers[0], numbers[0] + len(numbers))]:
        raise RunError(f"its waves are {numbers[:9]}, and must have numbers in a row")
    if {*names, "lanes", "standing"} != cut.about["parts"].keys():
        raise RunError(f"its parts are {sorted(cut.about['parts'])[:9]}, and its waves {numbers[:9]}")
    for name in names:
        check(f"its {name}", cut.about["parts"][name], WAVE)
        own = cut.part(name)
        lanes = len(_array(own, "live", np.bool_, (None,)))
        if not lanes:
            raise RunError(f"its {name} has no lanes")
        _array(own, "trial", np.int32, (lanes,), least=0, most=trials - 1)
        _array(own, "taken", np.int32, (lanes,), least=0)
        _array(own, "lost", np.int32, (None,), least=0, most=trials - 1)
        if "stream" in own.arrays:
            Position.unpacked(own.arrays["stream"])
        short = [n for n, a in own.arrays.items() if n not in OF_WAVE and len(a) != lanes]
        if short:
            raise RunError(f"{short[0]} of its {name} has {len(own.arrays[short[0]])} rows for {lanes} lanes")
    lane = _array(cut.part("lanes"), "changes", np.int64, (None, 4), least=0)
    limits = (trials, replicates, len(STATUSES), 2**31)
    if not (lane < np.array(limits)).all():
        raise RunError(f"its lanes go beyond {trials} trials, {replicates} replicates, or what can become of them")
    standing = cut.part("standing")
    _array(standing, "values", np.float64, (trials, replicates))
    _array(standing, "steps", np.int64, (trials,), least=0)
    _array(standing, "stopped", np.bool_, (trials,))
    longest = _array(standing, "curves", np.float64, (trials, None)).shape[1]
    _array(standing, "lengths", np.int32, (trials,), least=0, most=longest)


def check_lanes(cut: Cut, lanes: int, leaves: Sequence[Any]) -> None:
    """Makes sure that the part of a wave holds its lanes, or none where these had not begun or are finished.

    Args:
      cut: the part.
      lanes: how many there are.
      leaves: shape and dtype of what a lane carries.

    Raises:
      RunError: it does not.
    """
    try:
        for name in ("live", "taken"):
            _array(cut, name, cut.arrays[name].dtype, (lanes,))
        held = [name for name in cut.arrays if name.startswith("lanes/")]
        if held:
            for i, leaf in enumerate(leaves):
                _array(cut, f"lanes/{i}", leaf.dtype, (lanes, *leaf.shape))
            if len(held) > len(leaves):
                raise RunError(f"it has {len(held)} arrays of lanes for {len(leaves)}")
    except RunError as error:
        raise RunError(
            f"the checkpoint is not of this sweep: {error}. Delete the newest folder in checkpoints/ to go on "
            "from the one before."
        ) from None


def _array(
    cut: Cut, name: str, dtype: Any, shape: tuple[int | None, ...], least: int | None = None, most: int = 2**31 - 1
) -> Any:
    """An array of a cut, which must be so."""
    array = cut.arrays.get(name)
    if array is None:
        raise RunError(f"{name} is missing")
    sizes = len(array.shape) == len(shape) and all(n in (m, None) for n, m in zip(shape, array.shape, strict=True))
    if not sizes or array.dtype != dtype:
        raise RunError(f"{name} is {array.dtype} {array.shape}, and must be {np.dtype(dtype)} {shape}")
    if least is not None and array.size and not (array.min() >= least and array.max() <= most):
        raise RunError(f"{name} has numbers outside {least} … {most}")
    return array
