"""The table of μP: what it makes of each parameter of a model, found by comparing shapes at two widths.

G. Yang et al., "Tensor Programs V: Tuning Large Neural Networks via Zero-Shot Hyperparameter Transfer", 2022,
arXiv 2203.03466, Table 8.
"""

from typing import Any, Literal, NamedTuple

import jax
import numpy as np

from hpjax.core.errors import InputError
from hpjax.engine.state_tree import KeyPath, names_of

Rule = Literal["adam", "sgd"]
Kind = Literal["input", "hidden", "output", "finite"]
RULES: tuple[Rule, ...] = ("adam", "sgd")

# Vectors beside weights; those of attention have two axes, heads and their widths.
VECTORS = ("bias", "scale")
# What attention of Flax calls the products with its inputs, whose outputs are heads and their widths.
PROJECTIONS = ("query", "key", "value")

Shapes = dict[KeyPath, tuple[int, ...]]


class Multiplier(NamedTuple):
    """What μP makes of a parameter, as multiples of what it is in the base model: the columns of Table 8.

    Attributes:
      kind: ``"hidden"`` where fan-in and fan-out grow with the width, ``"output"`` where the fan-in does, ``"input"``
        where the fan-out does, as of all biases; ``"finite"`` where nothing does.
      variance: of the initial values.
      multiplier: of the parameter where the model uses it.
      rate: of the learning rate.
      power: of ``multiplier`` in the learning rate of a parameter that holds it itself.
    """

    kind: Kind
    variance: float
    multiplier: float
    rate: float
    power: int

    @property
    def own_deviation(self) -> float:
        """The standard deviation of initial values that hold the multiplier themselves, as hpjax keeps parameters."""
        return float(np.sqrt(self.variance)) * self.multiplier

    @property
    def own_rate(self) -> float:
        """The learning rate of a parameter that holds the multiplier itself."""
        return self.rate * self.multiplier**self.power


def multipliers(params: Any, base: Any, rule: Rule = "adam") -> dict[str, Multiplier]:
    """Returns what μP makes of each parameter of a model, by the path of the parameter.

    Args:
      params: parameters of the model, a pytree of arrays or of ``jax.ShapeDtypeStruct``.
      base: those of the same model at the base width.
      rule: ``"adam"`` or ``"sgd"``, as of ``MuP``.

    Raises:
      InputError: the models have different parameters, or all of the same shapes; or there is no such rule.

    Example:
      >>> model = lambda width: nn.Sequential([nn.Dense(width), nn.relu, nn.Dense(width), nn.relu, nn.Dense(10)])
      >>> wide, base = (model(width).init(jax.random.key(0), jnp.ones((1, 64)))["params"] for width in (256, 64))
      >>> found = multipliers(wide, base)
      >>> [found[f"layers_{i}/kernel"].kind for i in (0, 2, 4)]
      ['input', 'hidden', 'output']
      >>> [found[f"layers_{i}/kernel"].rate for i in (0, 2, 4)]
      [1.0, 0.25, 1.0]
    """
    check_rule("multipliers.rule", rule)
    own, small = shapes_of(params), shapes_of(base)
    if own.keys() != small.keys():
        one = next("/".join(map(str, name)) for name in (*own, *small) if (name in own) != (name in small))
        allowed = f"must have the parameters of the model, and only one of both has {one}"
        raise InputError("multipliers.base", one, allowed, "Give one model at two widths.")
    if own == small:
        allowed = "must differ from the model in the shape of a parameter: what does not change has no width"
        raise InputError("multipliers.base", "equal shapes", allowed, "Give one model at two widths.")
    return {
        "/".join(map(str, name)): multiplier_of(axes_of(name, small[name], own[name]), small[name], own[name], rule)
        for name in own
    }


def check_rule(field: str, rule: Any) -> None:
    """Raises ``InputError`` unless there is such a rule."""
    if rule not in RULES:
        raise InputError(field, rule, f"must be one of {', '.join(RULES)}", 'Write rule="adam".')


class Axes(NamedTuple):
    """The axes of a parameter that grow with the width: fan-in and fan-out, None where there is none."""

    fan_in: int | None
    fan_out: int | None


def axes_of(name: KeyPath, base: tuple[int, ...], wide: tuple[int, ...]) -> Axes:
    """Returns which axes of a parameter grow from one model to the other.

    Kernels of Flax have their inputs before their outputs; those of attention have heads and their widths as two axes.
    """
    if len(base) != len(wide):
        text, shapes = "/".join(map(str, name)), f"{base} and {wide}"
        raise InputError("MuP.base", text, f"must have as many axes at every width; it has {shapes}", "Name another.")
    grown = [axis for axis, (a, b) in enumerate(zip(base, wide, strict=True)) if a != b]
    last = len(base) - 1
    if not grown:
        return Axes(None, None)
    if len(base) == 1 or name[-1] in VECTORS:
        return Axes(None, grown[-1])
    if len(base) == 3 and grown == [1] and len(name) > 1 and name[-2] in PROJECTIONS:
        return Axes(None, 1)  # more heads, of inputs that do not grow
    if len(grown) == 1:
        return Axes(None, last) if grown[0] == last else Axes(grown[0], None)
    if len(grown) == 2:
        return Axes(grown[0], grown[1])
    # Attention whose heads and their widths both grow: the axis of the model grows as both together.
    return Axes(max(grown, key=lambda axis: wide[axis] / base[axis]), grown[-1])


def ratio_of(axes: Axes, base: tuple[int, ...], wide: tuple[int, ...]) -> float:
    """Returns the width of a parameter as a multiple of the base's: that of the fan-in, or of the fan-out alone."""
    axis = axes.fan_out if axes.fan_in is None else axes.fan_in
    return 1.0 if axis is None else wide[axis] / base[axis]


def multiplier_of(axes: Axes, base: tuple[int, ...], wide: tuple[int, ...], rule: Rule) -> Multiplier:
    """Returns what Table 8 says of a parameter."""
    m, sgd = ratio_of(axes, base, wide), rule == "sgd"
    power = 2 if sgd else 1  # a step of SGD is multiplied both in the gradient and where the parameter is used
    if axes == (None, None):
        return Multiplier("finite", 1.0, 1.0, 1.0, power)
    if axes.fan_in is None:
        return Multiplier("input", 1.0, 1.0, m if sgd else 1.0, power)
    if axes.fan_out is None:
        return Multiplier("output", 1.0, 1 / m, m if sgd else 1.0, power)
    return Multiplier("hidden", 1 / m, 1.0, 1.0 if sgd else 1 / m, power)


def shapes_of(params: Any) -> Shapes:
    """Returns the shapes of parameters by their paths."""
    return {names_of(path): tuple(leaf.shape) for path, leaf in jax.tree_util.tree_leaves_with_path(params)}
