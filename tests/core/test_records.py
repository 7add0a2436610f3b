"""Records of options: each option has a record of its own, and the record gives the option back."""

import enum
import json
from functools import partial

import jax
import pytest

import hpjax as hpx


def one(x):
    return x


class Kind(enum.StrEnum):
    A = "a"


class Plain:
    """Prints like every other of its kind."""

    def __repr__(self):
        return "Plain()"


TWO = [lambda x: x, lambda x: 3 * x]
CHOICES = {
    "lambdas": hpx.Choice(*TWO),
    "a function and its name": hpx.Choice("one", one),
    "a name with a position": hpx.Choice(*TWO, "<lambda> #1"),
    "numbers and texts": hpx.Choice(1, "1", 1.5, "1.5", None, "None", float("inf")),
    "tuples of functions": hpx.Choice((TWO[0], 64), (TWO[1], 64), (64, 64)),
    "objects": hpx.Choice(Plain(), Plain(), Plain()),
    "partial functions": hpx.Choice(partial(one, 1), partial(one, 1), partial(one, 2)),
    "an enumeration": hpx.Choice(Kind.A, "b", jax.nn.relu),
    "booleans": hpx.Choice(True, False),
}


@pytest.mark.parametrize("name", CHOICES)
def test_every_option_comes_back_from_its_record(name):
    choice = CHOICES[name]
    space = hpx.Space(f=choice, x=hpx.Uniform(0, 1))
    records = [space.recorded({"f": option, "x": 0.25}) for option in choice.options]
    texts = [json.dumps(record) for record in records]
    assert len(set(texts)) == len(choice.options)
    for option, text in zip(choice.options, texts, strict=True):
        # What JSON has as a list was a tuple: hyperparameters are never lists.
        read = {n: tuple(v) if isinstance(v, list) else v for n, v in json.loads(text).items()}
        found = space.recalled(read)["f"]
        assert found is option or (found == option and type(found) is type(option))


def test_functions_of_one_name_have_their_positions_and_others_their_names():
    space = hpx.Space(f=hpx.Choice(jax.nn.relu, *TWO))
    assert [space.recorded({"f": f})["f"] for f in (jax.nn.relu, *TWO)] == ["relu", "<lambda> #1", "<lambda> #2"]


def test_alternatives_tell_their_functions_apart_too():
    space = hpx.Space(f=hpx.Choice(TWO[0])) | hpx.Space(f=hpx.Choice(TWO[1]), x=1)
    assert space.recorded({"f": TWO[0]}) == {"f": "<lambda> #0"}
    assert space.recalled({"f": "<lambda> #1", "x": 1}) == {"f": TWO[1], "x": 1}
