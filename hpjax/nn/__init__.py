"""Layers whose hyperparameters can be traced, for Linen and NNX, and initializers to choose among.

Flax asks ``if rate == 0.0`` and builds its arrays to measure; here a dropout rate, the number of units of a
layer and the number of layers may be hyperparameters that differ from lane to lane. Layers with ``rngs`` are
NNX modules, those without are Linen's.
"""

from hpjax.nn.dense import Dense
from hpjax.nn.depth import layers
from hpjax.nn.dropout import Dropout, MultiHeadAttention
from hpjax.nn.initializers import (
    glorot_normal,
    glorot_uniform,
    he_normal,
    he_uniform,
    lecun_normal,
    lecun_uniform,
    normal,
    orthogonal,
    scaled,
    uniform,
    zeros,
)
from hpjax.nn.norm import LayerNorm

__all__ = [
    "Dense",
    "Dropout",
    "LayerNorm",
    "MultiHeadAttention",
    "glorot_normal",
    "glorot_uniform",
    "he_normal",
    "he_uniform",
    "layers",
    "lecun_normal",
    "lecun_uniform",
    "normal",
    "orthogonal",
    "scaled",
    "uniform",
    "zeros",
]
