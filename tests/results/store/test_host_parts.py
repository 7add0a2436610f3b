"""What several hosts write of final states and checkpoints, each its part; here one process plays both."""

import json

import numpy as np
import pytest

import hpjax as hpx
from hpjax.results.store.checkpoints import Checkpoints
from hpjax.results.store.final_states import Split, States, StateShard
from tests.support.compare import same_bits

WHOLE = np.arange(24.0).reshape(2, 3, 4)  # of two lanes, of trials 5 and 7
BIAS = np.arange(4.0).reshape(2, 2)
IDS = np.array([[5, 0], [7, 0]], np.int32)


def halves():
    """Each host has a half of both lanes along their second axis; the first has what is not split."""
    first = StateShard(IDS, [(("w",), WHOLE[..., :2]), (("b",), BIAS)], [Split(1, 0, 1, 2), None])
    return first, StateShard(IDS, [(("w",), WHOLE[..., 2:])], [Split(1, 1, 2, 2)])


def written(folder):
    for host, shard in enumerate(halves()):
        States(folder, host).add(0, [shard], alone=False)
    assert not States(folder).has(0), "not before all have written"
    States(folder).complete(0, IDS, [1, 1])
    return States(folder)


def test_parts_of_lanes_are_put_together(tmp_path):
    states = written(tmp_path)
    assert states.has(0)
    assert same_bits(states.table(0), IDS)
    found = dict(states.lane(0, 7, 0))
    assert same_bits(found["w",], WHOLE[1])
    assert same_bits(found["b",], BIAS[1])


def test_what_one_host_writes_later_replaces_it(tmp_path):
    written(tmp_path)
    States(tmp_path).add(0, [StateShard(IDS, [(("w",), -WHOLE), (("b",), BIAS)], [None, None])])
    assert same_bits(dict(States(tmp_path).lane(0, 5, 0))["w",], -WHOLE[0])


@pytest.mark.parametrize(
    "split",
    [{"axis": 1, "begin": 0, "end": 1, "of": 2}, {"axis": 9, "begin": 1, "end": 2, "of": 2}, None],
    ids=["a part twice", "an axis that is not there", "whole beside a part"],
)
def test_parts_that_do_not_fit_are_told(tmp_path, split):
    states = written(tmp_path)
    tree = tmp_path / "wave-0/host-1-0/tree.json"
    (leaf,) = json.loads(tree.read_text())
    tree.write_text(json.dumps([{**leaf, "split": split}]))
    with pytest.raises(hpx.RunError, match="no final state of trial 5, replicate 0"):
        states.lane(0, 5, 0)


@pytest.mark.parametrize("names", [["../outside"], ["host-0-0", "host-0-0/../.."], 7])
def test_only_folders_of_hosts_are_read(tmp_path, names):
    states = written(tmp_path)
    (tmp_path / "wave-0/shards.json").write_text(json.dumps(names))
    with pytest.raises(hpx.RunError, match=r"shards\.json"):
        states.lane(0, 5, 0)


def test_checkpoints_of_which_a_host_has_no_part_are_forgotten(tmp_path):
    """A host was killed before it wrote its part of the third: with both at two, a common one is always there."""
    hosts = [Checkpoints(tmp_path, 0.0, host, 2) for host in (0, 1)]
    for number in range(3):
        for each in hosts[: 1 if number == 2 else 2]:
            each.save({"a": np.full(2, number)}, 0.0)
            each.wait()
    assert hosts[0].numbers() == [0, 1, 2]
    for each in hosts:
        each.forget_after(1)
    assert hosts[1].numbers() == [0, 1]
    for each in hosts:
        assert each.hosts(1) == 2
        for host in (0, 1):
            assert each.load(host, 1, lambda shapes: None)["a"].tolist() == [1, 1]
    hosts[1].save({"a": np.full(2, 3)}, 0.0)
    hosts[1].wait()
    assert hosts[0].load(1, 1, lambda shapes: None)["a"].tolist() == [1, 1], "the last of both"
    for each in hosts:
        each.close()
