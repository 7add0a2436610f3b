"""Lanes without a sweep around them."""

import numpy as np

import hpjax as hpx
from hpjax.engine import layout, sharding
from hpjax.engine.compile import compiling
from hpjax.engine.device_lanes import DeviceLanes, LaneTable
from hpjax.engine.segment import SegmentConfig
from hpjax.engine.tracing import shapes_of
from tests.support.programs import RATES


def lanes_of(program, count, width, devices=1, replicates=1, space=RATES):
    """Lanes of one point, many times over, and what they were compiled to."""
    config, table, compiled = prepared(program, count, width, devices, replicates, space)
    return DeviceLanes(config, compiled.wait(), table, 0, *splits_of(program)), compiled


def splits_of(program):
    """The train and valid splits of a program's data, None of one without."""
    return (None, None) if program.data is None else (program.data.train, program.data.valid)


def prepared(program, count, width, devices=1, replicates=1, space=RATES):
    """What decides the programs of lanes of one point, their table, and the programs, not compiled yet."""
    point = dict.fromkeys(space.names, 0.1)
    shapes = hpx.Sweep(program, space, sampler=hpx.Manual([point])).plan().shapes[0]
    h = hpx.Hparams({n: np.full(count * replicates, v, np.float32) for n, v in point.items()}, space.names)
    config = SegmentConfig(program, shapes, width, independent=False, own_budget=False, drawn=True)
    replicate = np.repeat(np.arange(replicates, dtype=np.int32), count)
    table = LaneTable(
        np.tile(np.arange(count, dtype=np.int32), replicates), replicate, np.full(len(replicate), 99, np.int32), h
    )
    chunks = layout.chunks_needed(replicate, width, devices)
    mesh = sharding.mesh(sharding.devices(devices))
    return config, table, compiling(config, h, *map(shapes_of, splits_of(program)), mesh, chunks)
