"""Maximal update parametrization (μP): initial weights and learning rates that keep one best rate at every width.

G. Yang et al., "Tensor Programs V: Tuning Large Neural Networks via Zero-Shot Hyperparameter Transfer", 2022,
arXiv 2203.03466. The numbers are those of its Table 8, relative to a base model as its Appendix H has it: at the base
width μP is the standard parametrization.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen

from hpjax.core.errors import InputError, check_int, did_you_mean
from hpjax.core.hparams import Hparams, unread
from hpjax.core.threefry import fast
from hpjax.engine.state_tree import KeyPath, names_of
from hpjax.training.network import Network, Params, Stats

Rule = Literal["adam", "sgd"]
Kind = Literal["input", "hidden", "output", "finite"]
RULES: tuple[Rule, ...] = ("adam", "sgd")

# Vectors beside weights; those of attention have two axes, heads and their widths.
VECTORS = ("bias", "scale")
# How a standard deviation depends on the width is found from so many draws of the base model, and of one twice as wide.
DRAWS = 4

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
      rule: ``"adam"``, for all optimizers whose steps do not depend on the size of gradients, or ``"sgd"``.

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
    own, small = _shapes(params), _shapes(base)
    if own.keys() != small.keys():
        one = next("/".join(map(str, name)) for name in (*own, *small) if (name in own) != (name in small))
        allowed = f"must have the parameters of the model, and only one of both has {one}"
        raise InputError("multipliers.base", one, allowed, "Give one model at two widths.")
    if own == small:
        allowed = "must differ from the model in the shape of a parameter: what does not change has no width"
        raise InputError("multipliers.base", "equal shapes", allowed, "Give one model at two widths.")
    return {
        "/".join(map(str, name)): _of(_axes(name, small[name], own[name]), small[name], own[name], rule) for name in own
    }


@dataclass(frozen=True)
class MuP:
    """The maximal update parametrization of a supervised program: ``hpx.supervised(mup=hpx.mup.MuP({"width": 64}))``.

    Rates, and all else that was tuned at the base width, then hold at other widths (G. Yang et al., 2022, arXiv
    2203.03466). Which axes of the parameters grow is found by comparing the shapes of the model at the base width and
    at twice that. A parameter of a trial begins with the base model's standard deviation times what Table 8 says,
    whatever initializer drew it, and its updates are multiplied likewise. Parameters hold their multipliers themselves,
    so that a trained model is a plain one of Flax. At the base width nothing changes, to the bit.

    Weight decay, decoupled or not, stays what it is at the base width: the optimizer sees each parameter divided by its
    multiplier of the rate. Adam's epsilon is not scaled. What μP changes in the model itself is written there:
    ``hpx.mup.attention`` where the width of a head grows, ``hpx.mup.residual`` where the depth does, and logits times
    ``base_width / width`` where the embedding is the last layer, too.

    Args:
      base: hyperparameter to its value in the base model, of those that decide on the width. Other hyperparameters of
        the base model, such as the depth, are the trial's.
      rule: ``"adam"`` for Adam, Lion and all others whose steps do not depend on the size of gradients; ``"sgd"``, with
        momentum or without.
      enabled: whether to use it. It may be traced, ``mup=lambda h: hpx.mup.MuP({"width": 64}, enabled=h.mup)``, so that
        lanes with and without it share a program.

    Raises:
      InputError: an argument cannot be used.

    Example:
      >>> program = hpx.supervised(
      ...     model=lambda h: nn.Sequential([nn.Dense(h.width), nn.relu, nn.Dense(10)]),
      ...     optimizer=lambda h: optax.adam(h.learning_rate), mup=MuP({"width": 32}),
      ...     loss=optax.softmax_cross_entropy_with_integer_labels, data=hpx.data.digits(), batch_size=64, steps=10)
      >>> space = hpx.Space(learning_rate=hpx.LogUniform(1e-4, 1e-1), width=hpx.Choice(32, 128))
      >>> len(hpx.Sweep(program, space, trials=4).run(progress=False))
      4
    """

    base: Mapping[str, int]
    rule: Rule = "adam"
    enabled: Any = True

    def __post_init__(self) -> None:
        if not isinstance(self.base, Mapping) or not self.base:
            allowed = "must be hyperparameter to its value in the base model"
            raise InputError("MuP.base", self.base, allowed, 'Write hpx.mup.MuP({"width": 64}).')
        for name, value in self.base.items():
            check_int(f"MuP.base[{name!r}]", value)
        check_rule("MuP.rule", self.rule)


def check_rule(field: str, rule: Any) -> None:
    """Raises ``InputError`` unless there is such a rule."""
    if rule not in RULES:
        raise InputError(field, rule, f"must be one of {', '.join(RULES)}", 'Write rule="adam".')


class Scaling(NamedTuple):
    """A network with the parametrization that a function of ``h`` gives.

    Attributes:
      net: the network in the standard parametrization.
      example: one input example, (1, ...).
      of: the parametrization of a trial; None for the standard one.
    """

    net: Network
    example: Any
    of: Callable[[Hparams], MuP | None]

    def network(self) -> Network:
        """Returns the network, whose initial parameters are as its parametrization has them."""
        return self.net._replace(init=self._init)

    def rates(self, h: Hparams) -> dict[KeyPath, Any] | None:
        """Returns the multiplier of the learning rate of each parameter, by the path; None in the standard one."""
        mup = self.of(h)
        if mup is None:
            return None
        return {name: _if(mup.enabled, each.multiplier.own_rate) for name, each in self._scaled(mup, h).items()}

    def _init(self, key: jax.Array, x: Any, h: Hparams) -> tuple[Params, Stats]:
        params, stats = self.net.init(key, x, h)
        mup = self.of(h)
        if mup is None:
            return params, stats
        found = {name: each for name, each in self._scaled(mup, h).items() if each.ratio != 1}
        powers = self._powers(mup, h, found) if found else {}

        def scaled(path: Any, value: Any) -> Any:
            name = names_of(path)
            if name not in found:
                return value
            # The initializer has brought a part of it already.
            factor = found[name].multiplier.own_deviation / found[name].ratio ** powers[name]
            return (value * _if(mup.enabled, factor)).astype(value.dtype)

        return jax.tree_util.tree_map_with_path(scaled, params), stats

    def _scaled(self, mup: MuP, h: Hparams) -> dict[KeyPath, "_Scaled"]:
        """Returns how each parameter of a trial is scaled."""
        base, twice, own = (self._drawn_shapes(each) for each in (_with(h, mup, 1), _with(h, mup, 2), h))
        if base == twice:
            names = ", ".join(mup.base)
            allowed = f"must change the shape of a parameter; {names} at twice this changes none"
            raise InputError("MuP.base", dict(mup.base), allowed, "Name what decides on the width of the model.")
        found = {}
        for name, shape in own.items():
            axes, small, wide = _axes(name, base[name], twice[name]), base[name], twice[name]
            ratio, doubled = (_ratio(axes, small, each) for each in (shape, wide))
            found[name] = _Scaled(_of(axes, small, shape, mup.rule), ratio, doubled)
        return found

    def _drawn_shapes(self, h: Hparams) -> Shapes:
        return _shapes(jax.eval_shape(lambda: self.net.init(fast(jax.random.key(0)), jnp.asarray(self.example), h)[0]))

    def _powers(self, mup: MuP, h: Hparams, found: Mapping[KeyPath, "_Scaled"]) -> dict[KeyPath, jax.Array]:
        """Returns the power of the width with which the initializer of each parameter scales it, a multiple of ½."""
        keys = jax.random.split(jax.random.key(0), DRAWS)

        def squares(h: Hparams) -> dict[KeyPath, jax.Array]:
            params = jax.vmap(lambda key: self.net.init(fast(key), jnp.asarray(self.example), h)[0])(keys)
            leaves = jax.tree_util.tree_leaves_with_path(params)
            return {names_of(path): jnp.mean(jnp.square(leaf.astype(jnp.float32))) for path, leaf in leaves}

        small, wide = squares(_with(h, mup, 1)), squares(_with(h, mup, 2))
        powers = {}
        for name, each in found.items():
            some = (small[name] > 0) & (wide[name] > 0)  # zeros stay zeros
            grown = jnp.log(jnp.where(some, wide[name] / jnp.where(some, small[name], 1), 1))
            powers[name] = jnp.round(grown / np.log(each.doubled)) / 2
        return powers


class _Scaled(NamedTuple):
    """How a parameter is scaled: its multiplier, its width as a multiple of the base's, and that of the doubled one."""

    multiplier: Multiplier
    ratio: float
    doubled: float


class _Axes(NamedTuple):
    """The axes of a parameter that grow with the width: fan-in and fan-out, None where there is none."""

    fan_in: int | None
    fan_out: int | None


def _axes(name: KeyPath, base: tuple[int, ...], wide: tuple[int, ...]) -> _Axes:
    """Returns which axes of a parameter grow from one model to the other.

    Kernels of Flax have their inputs before their outputs; those of attention have heads and their widths as two axes.
    """
    if len(base) != len(wide):
        text, shapes = "/".join(map(str, name)), f"{base} and {wide}"
        raise InputError("MuP.base", text, f"must have as many axes at every width; it has {shapes}", "Name another.")
    grown = [axis for axis, (a, b) in enumerate(zip(base, wide, strict=True)) if a != b]
    last = len(base) - 1
    if not grown:
        return _Axes(None, None)
    if len(base) == 1 or name[-1] in VECTORS:
        return _Axes(None, grown[-1])
    if len(grown) == 1:
        return _Axes(None, last) if grown[0] == last else _Axes(grown[0], None)
    if len(grown) == 2:
        return _Axes(grown[0], grown[1])
    # Attention whose heads and their widths both grow: the axis of the model grows as both together.
    return _Axes(max(grown, key=lambda axis: wide[axis] / base[axis]), grown[-1])


def _ratio(axes: _Axes, base: tuple[int, ...], wide: tuple[int, ...]) -> float:
    """Returns the width of a parameter as a multiple of the base's: that of the fan-in, or of the fan-out alone."""
    axis = axes.fan_out if axes.fan_in is None else axes.fan_in
    return 1.0 if axis is None else wide[axis] / base[axis]


def _of(axes: _Axes, base: tuple[int, ...], wide: tuple[int, ...], rule: Rule) -> Multiplier:
    """Returns what Table 8 says of a parameter."""
    m, sgd = _ratio(axes, base, wide), rule == "sgd"
    power = 2 if sgd else 1  # a step of SGD is multiplied both in the gradient and where the parameter is used
    if axes == (None, None):
        return Multiplier("finite", 1.0, 1.0, 1.0, power)
    if axes.fan_in is None:
        return Multiplier("input", 1.0, 1.0, m if sgd else 1.0, power)
    if axes.fan_out is None:
        return Multiplier("output", 1.0, 1 / m, m if sgd else 1.0, power)
    return Multiplier("hidden", 1 / m, 1.0, 1.0 if sgd else 1 / m, power)


def _shapes(params: Any) -> Shapes:
    return {names_of(path): tuple(leaf.shape) for path, leaf in jax.tree_util.tree_leaves_with_path(params)}


def _with(h: Hparams, mup: MuP, times: int) -> Hparams:
    """Returns the hyperparameters of the base model, or of one so many times as wide."""
    values = unread(h)
    for name in mup.base:
        if name not in values:
            raise InputError("MuP.base", name, "must be a hyperparameter of the space", did_you_mean(name, values))
    return Hparams(
        {**values, **{name: times * value for name, value in mup.base.items()}},
        [name for name in h._traced if name not in mup.base],
    )


def _if(enabled: Any, value: Any) -> Any:
    """Returns a multiplier where the parametrization is enabled, else 1."""
    return (value if enabled else 1.0) if isinstance(enabled, bool) else jnp.where(enabled, value, 1.0)


def residual(depth: int, base_depth: int) -> float:
    """Returns by what to multiply each branch of a residual network, so that what was tuned holds at other depths.

    This is CompleteP, α = 1 (N. Dey et al., "Don't be lazy: CompleteP enables compute-efficient deep transformers",
    2025, arXiv 2505.01618). Learning rates do not depend on the depth then.

    Args:
      depth: residual blocks of the model, 1 or more.
      base_depth: those of the base model.

    Example:
      >>> class Block(nn.Module):
      ...     depth: int
      ...     @nn.compact
      ...     def __call__(self, x):
      ...         return x + hpx.mup.residual(self.depth, base_depth=2) * nn.Dense(x.shape[-1])(nn.relu(x))
      >>> residual(8, base_depth=2)
      0.25
    """
    depth, base_depth = check_int("residual.depth", depth), check_int("residual.base_depth", base_depth)
    return base_depth / depth


def attention(base_width: int, attention_fn: Callable[..., Any] = linen.dot_product_attention) -> Callable[..., Any]:
    """Returns attention with logits q·k / d in place of q·k / √d, which are equal where a head has the base's width.

    Args:
      base_width: d, the width of a head of the base model.
      attention_fn: takes ``query``, ``key`` and ``value``, (..., heads, d) each, first; divides by √d.

    Example:
      >>> layer = nn.MultiHeadDotProductAttention(num_heads=4, attention_fn=attention(16))
      >>> layer.init_with_output(jax.random.key(0), jnp.ones((1, 8, 128)))[0].shape
      (1, 8, 128)
    """
    base_width = check_int("attention.base_width", base_width)

    def attended(query: Any, key: Any, value: Any, *arguments: Any, **options: Any) -> Any:
        scale = float(np.sqrt(base_width / query.shape[-1]))
        return attention_fn(query * scale, key, value, *arguments, **options)

    return attended
