"""Which trials have artifacts, of some with scores."""

import numpy as np
import pytest

import hpjax as hpx
from hpjax.sweep.artifact_choice import ArtifactChoice

SCORES = np.array([3.0, np.nan, 1.0, np.inf, 1.0, 2.0])
TRIALS = [10, 11, 12, 13, 14, 15]


@pytest.mark.parametrize(
    ("asked", "chosen"),
    [
        ("best:1", [12]),
        ("best:2", [12, 14]),
        ("best:3", [12, 14, 15]),
        ("best:99", [10, 12, 14, 15]),
        ("all", TRIALS),
        ([13, 10], [10, 13]),
        ("13, 10", [10, 13]),
        (np.array([11, 99]), [11]),
        ((), []),
    ],
)
def test_trials_are_chosen_by_score_or_by_id(asked, chosen):
    assert ArtifactChoice.read(asked).of(TRIALS, SCORES) == chosen


def test_it_knows_whether_any_of_some_trials_may_be_chosen():
    assert ArtifactChoice.read("best:1").may_have([3])
    assert not ArtifactChoice.read("best:1").may_have([])
    assert ArtifactChoice.read([3, 4]).may_have([4, 5])
    assert not ArtifactChoice.read([3, 4]).may_have([5])
    assert not ArtifactChoice.none().may_have([5])


def test_ids_are_those_of_trials():
    ArtifactChoice.read([0, 3]).check(4)
    with pytest.raises(hpx.InputError, match=r"Sweep.artifacts = \[0, 4\]: must be ids of trials, which are 0 … 3"):
        ArtifactChoice.read([0, 4]).check(4)


@pytest.mark.parametrize("asked", ["", "best", "best:", "best:0", "best:-1", "best:1.5", "1,x", [1.5], [True], 4, -1])
def test_anything_else_is_refused(asked):
    with pytest.raises(hpx.InputError, match="must be"):
        ArtifactChoice.read(asked)
