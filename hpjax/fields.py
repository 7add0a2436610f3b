"""What the fields of a manifest must be, before anything goes by them."""

import re
from collections.abc import Callable
from typing import Any

from hpjax.core.errors import RunError
from hpjax.untrusted import Field, check, is_real, is_text, is_whole, list_of

PART = re.compile("[0-9]{1,9}/[0-9]{1,9}")
SCALES = ("linear", "log", "reverse log", "category")


def _is_dict(value: Any, fits: Callable[[Any], bool]) -> bool:
    return isinstance(value, dict) and all(map(fits, value.values()))


def _are_texts(value: Any) -> bool:
    return isinstance(value, list) and all(map(is_text, value))


def _is_range(value: Any) -> bool:
    return isinstance(value, list) and len(value) == 3 and all(map(is_real, value[:2])) and value[2] in SCALES


# Of the manifest all that is read again, and what each must be.
_NUMBER = Field(lambda v: is_whole(v, 1), "a whole number, 1 or more")
FIELDS = {
    "created": Field(is_text, "a time"),
    "command": Field(lambda v: isinstance(v, list) and all(isinstance(word, str) for word in v), "a list of words"),
    "versions": Field(lambda v: _is_dict(v, is_text), "a version for each package"),
    "plan": Field(lambda v: isinstance(v, list) and all(isinstance(line, str) for line in v), "a list of lines"),
    "extended": Field(is_whole, "a whole number, 0 or more"),
    "sweep.names": Field(list_of(lambda v: is_text(v) and v.isidentifier()), "a list of names"),
    "sweep.metrics": Field(list_of(is_text), "a list of names"),
    "sweep.scales": Field(
        lambda v: isinstance(v, dict) and all(scale in SCALES for scale in v.values()),
        f"one of {', '.join(SCALES)} for each name",
    ),
    "sweep.space": Field(
        lambda v: isinstance(v, dict) and all(_is_dict(each, is_text) for each in v.values()),
        "a domain for each name of each alternative",
    ),
    "sweep.ranges": Field(
        lambda v: isinstance(v, list) and all(_is_dict(each, _is_range) for each in v),
        "low, high and scale of names of each alternative",
    ),
    "sweep.options": Field(
        lambda v: isinstance(v, list) and all(_is_dict(each, _are_texts) for each in v),
        "the options of names of each alternative",
    ),
    "sweep.program": Field(lambda v: _is_dict(v, lambda each: isinstance(each, str)), "names with what they are"),
    "sweep.trials": _NUMBER,
    "sweep.rounds": Field(
        lambda v: isinstance(v, list) and len(v) > 0 and all(is_whole(n, 1) for n in v), "a list of numbers"
    ),
    "sweep.replicates": _NUMBER,
    "sweep.width": Field(
        lambda v: isinstance(v, list) and len(v) > 0 and all(is_whole(n, 1) for n in v), "a list of numbers"
    ),
    "sweep.kernels": Field(
        lambda v: isinstance(v, list) and len(v) > 0 and all(each in ("batched", "xla") for each in v),
        "a list of batched or xla",
    ),
    "sweep.folds": Field(lambda v: v is None or is_whole(v, 1), "null, or a whole number, 1 or more"),
    "sweep.shard": Field(
        lambda v: v is None or list_of(lambda each: isinstance(each, str) and PART.fullmatch(each) is not None)(v),
        "null, or a list of shards such as 1/4",
    ),
    "sweep.objective": Field(
        lambda v: (
            isinstance(v, list)
            and len(v) == 3
            and is_text(v[0])
            and v[1] in ("minimize", "maximize")
            and (v[2] is None or (is_real(v[2]) and 0 <= v[2] <= 1))
        ),
        "a metric, minimize or maximize, and null or a quantile",
    ),
}


def check_manifest(where: str, manifest: Any) -> None:
    """Makes sure that all that is read of a manifest is what it must be.

    Raises:
      RunError: it is not; names the field.
    """
    check(where, manifest, FIELDS)
    sweep = manifest["sweep"]
    if sweep["scales"].keys() != {*sweep["names"]}:
        raise RunError(f"{where}: sweep.scales must have the names in sweep.names. It is damaged.")
    for name in ("ranges", "options"):
        if len(sweep[name]) != len(sweep["space"]):
            raise RunError(f"{where}: sweep.{name} must have the alternatives of sweep.space. It is damaged.")
    if sum(sweep["rounds"]) != sweep["trials"]:
        raise RunError(f"{where}: sweep.rounds must add up to sweep.trials. It is damaged.")
    if sweep["objective"][0] not in sweep["metrics"]:
        raise RunError(f"{where}: sweep.objective must be one of sweep.metrics. It is damaged.")
