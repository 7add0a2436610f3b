"""What hosts hold of lanes, of meshes of hosts that are not there."""

import jax
import numpy as np
import pytest
from jax.sharding import PartitionSpec

import hpjax as hpx
from hpjax.engine import lane_shards, layout
from hpjax.engine.lane_shards import WHOLE, Assembly, LaneArrays, LaneShard, Part
from tests.support.compare import same_bits

LANES, SHAPES = 5, ((12, 4), (3,), ())
VALUES = [np.arange(LANES * np.prod(s)).reshape(LANES, *s).astype(np.float32) for s in SHAPES]


class Device:
    def __init__(self, host):
        self.process_index = host


class Mesh:
    """A mesh of (rows, columns) devices that the hosts have one after the other, each so many."""

    def __init__(self, rows, columns, each):
        devices = [Device(number // each) for number in range(rows * columns)]
        self.devices = np.array(devices).reshape(rows, columns)


def arrays_of(columns):
    """Three arrays of a lane, of which the first is split along its first axis where that is more than one device."""
    like = tuple(jax.ShapeDtypeStruct(shape, np.float32) for shape in SHAPES)
    return LaneArrays(like, (0 if columns > 1 else WHOLE, WHOLE, WHOLE), columns)


def shards(monkeypatch, mesh, columns, slots, host):
    """The shards of a host, from lanes in these slots."""
    monkeypatch.setattr(jax, "process_index", lambda: host)
    whole = LaneShard.whole(VALUES)
    like = arrays_of(columns)
    return lane_shards.shards_of(list(lane_shards.in_slots([whole], like, slots, mesh)), like, slots, mesh)


@pytest.mark.parametrize(
    ("rows", "columns", "each"),
    [(4, 1, 2), (2, 2, 2), (1, 4, 2), (3, 2, 3), (2, 3, 2)],
    ids=["lanes", "spans within hosts", "a span over hosts", "some spans over hosts", "parts of unequal length"],
)
def test_hosts_together_hold_everything_once(monkeypatch, rows, columns, each):
    """Of any mesh, and it can be put together for any other one."""
    slots = layout.arrange(np.zeros(LANES, np.int32), np.ones(LANES, bool), 1, rows, -(-LANES // rows))
    mesh, hosts = Mesh(rows, columns, each), range(-(-rows * columns // each))
    held = [shard for host in hosts for shard in shards(monkeypatch, mesh, columns, slots, host)]
    assert sum(shard.arrays[0].size for shard in held) == VALUES[0].size
    assert sum(shard.arrays[1].size for shard in held) == VALUES[1].size
    like = arrays_of(columns)
    for shard in held:
        like.check(shard, LANES)
    wanted = Assembly(np.arange(LANES, dtype=np.int32), Part(0, columns, columns), like)
    for shard in held:
        wanted.add(shard)
    assert all(map(same_bits, wanted.shard().arrays, VALUES))
    if columns == 4:  # of the second half of each lane, with what is not split
        half = Assembly(np.array([1, 4], np.int32), Part(2, 4, 4), like)
        for shard in held:
            half.add(shard)
        assert same_bits(half.shard().arrays[0], VALUES[0][[1, 4], 6:])
        assert same_bits(half.shard().arrays[1], VALUES[1][[1, 4]])


def test_what_is_missing_is_told(monkeypatch):
    slots = layout.arrange(np.zeros(LANES, np.int32), np.ones(LANES, bool), 1, 2, 3)
    held = shards(monkeypatch, Mesh(2, 2, 2), 2, slots, 0)
    wanted = Assembly(np.arange(LANES, dtype=np.int32), Part(0, 2, 2), arrays_of(2))
    wanted.add(*held)
    assert not wanted.complete
    with pytest.raises(hpx.RunError, match="some of its lanes are missing"):
        wanted.shard()


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"part": np.array([0, 3, 2], np.int32)}, r"it holds the part \[0, 3, 2\] of lanes that 2 devices share"),
        ({"part": np.array([0, 1, 4], np.int32)}, r"the part \[0, 1, 4\]"),
        ({"lanes": np.array([0, 2, 2], np.int32)}, "its lanes are not some of 5"),
        ({"lanes": np.array([0, 2, 9], np.int32)}, "its lanes are not some of 5"),
        ({"arrays": ()}, "its lanes have 0 arrays, and must have 3"),
        ({"arrays": (np.zeros((3, 12, 4), np.float32), *VALUES[1:])}, r"array 0 of 3 lanes is float32 \(3, 12, 4\)"),
    ],
)
def test_shards_that_no_host_wrote(monkeypatch, change, told):
    slots = layout.arrange(np.zeros(LANES, np.int32), np.ones(LANES, bool), 1, 2, 3)
    (shard,) = shards(monkeypatch, Mesh(2, 2, 1), 2, slots, 0)
    like = arrays_of(2)
    like.check(shard, LANES)
    with pytest.raises(hpx.RunError, match=told):
        like.check(shard._replace(**change), LANES)


def test_arrays_are_split_along_the_axis_of_their_spec():
    program = hpx.Program(
        lambda key, h: {"a": np.zeros((2, 8)), "b": np.zeros(3)},
        lambda key, state, batch, h: (state, {}),
        lambda key, state, split, h: {"loss": h.rate},
        steps=1,
    )
    plan = hpx.Sweep(program, hpx.Space(rate=hpx.Uniform(0, 1)), trials=1).plan()
    like = LaneArrays.of_program(plan.shapes[0], [PartitionSpec(None, "data"), PartitionSpec()], 4)
    assert like.axes[:2] == (1, WHOLE)
    assert like.shape(0, Part(1, 3, 4)) == (2, 4)
