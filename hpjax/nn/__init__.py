"""Layers whose hyperparameters can be traced, for Linen and NNX, and initializers to choose among.

Flax decides on a dropout rate with ``if rate == 0.0``, and a layer's arrays have exactly its number of units. Here a
dropout rate, the number of units of a layer and the number of layers may be hyperparameters that differ from lane to
lane. A layer that is given ``rngs`` is an NNX module, one without is a Linen module.
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
