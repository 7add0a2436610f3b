"""Maximal update parametrization (μP): initial weights and learning rates that keep one best rate at every width.

G. Yang et al., "Tensor Programs V: Tuning Large Neural Networks via Zero-Shot Hyperparameter Transfer", 2022,
arXiv 2203.03466. The numbers are those of its Table 8, relative to a base model as its Appendix H has it: at the base
width μP is the standard parametrization.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import prod
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen

from hpjax.core.arrays import ceil_div
from hpjax.core.errors import InputError, check_int, did_you_mean
from hpjax.core.hparams import Hparams, unread
from hpjax.core.threefry import fast
from hpjax.engine.state_tree import KeyPath, names_of
from hpjax.training.mup_adam import SCALES, reads_scales
from hpjax.training.mup_table import Multiplier, Rule, Shapes, axes_of, check_rule, multiplier_of, ratio_of, shapes_of
from hpjax.training.network import Network, Params, Stats

# Of each kernel so many numbers are drawn, or as many as these draws give, so that its deviation is known to half a per
# cent.
DRAWN, MOST_DRAWS = 16_384, 64
# A deviation that is within 5 % of a power of the width, whole or half, is that power.
CLOSE = 0.05


@dataclass(frozen=True)
class MuP:
    """The maximal update parametrization of a supervised program: ``hpx.supervised(mup=hpx.mup.MuP({"width": 64}))``.

    Rates, and all else that was tuned at the base width, then hold at other widths (G. Yang et al., 2022, arXiv
    2203.03466). Which axes of the parameters grow is found by comparing the shapes of the model at the base width and
    at twice that. A parameter of a trial begins with the base model's standard deviation times what Table 8 says,
    whatever initializer drew it: both deviations are those of numbers that are drawn from it. Its updates are
    multiplied likewise. Parameters hold their multipliers themselves, so that a trained model is a plain one of Flax.
    At the base width nothing changes, to the bit.

    Decoupled weight decay stays what it is at the base width, and so does coupled one under ``"sgd"``: the optimizer
    sees each parameter divided by its multiplier of the rate. Coupled decay, and a ``penalty``, under ``"adam"`` have
    no counterpart at other widths. Adam's epsilon stays as it is, but that of ``hpx.mup.adamw``. What μP changes in the
    model itself is written there: ``hpx.mup.attention`` where the width of a head grows, ``hpx.mup.residual`` where the
    depth does, and logits times ``base_width / width`` where the embedding is the last layer, too.

    Args:
      base: hyperparameter to its value in the base model, of those that decide on the width. Other hyperparameters of
        the base model, such as the depth, are the trial's.
      rule: ``"adam"`` for Adam, Lion, RMSProp, AdaGrad and others that give each weight a step of its own size,
        whatever the size of its gradient; ``"sgd"``, with momentum or without. Neither is for Muon, Shampoo, LAMB,
        LARS or others that normalize whole layers.
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
        base = {name: check_int(f"MuP.base[{name!r}]", value) for name, value in self.base.items()}
        object.__setattr__(self, "base", base)
        check_rule("MuP.rule", self.rule)
        if not isinstance(self.enabled, bool | int | float | np.generic | np.ndarray | jax.Array):
            allowed = "must be True or False, or a traced hyperparameter that is"
            raise InputError(
                "MuP.enabled", self.enabled, allowed, "Write enabled=h.mup, and mup=hpx.Choice(True, False)."
            )


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

    def extra(self, optimizer: Any, h: Hparams) -> dict[str, Any]:
        """Returns what ``mup.adamw`` takes beside gradients, if it is in an optimizer, as extra arguments of Optax.

        It is the size of each parameter's gradient as a multiple of that in the base model, by the path.
        """
        mup = self.of(h)
        if mup is None or not reads_scales(optimizer):
            return {}
        return {SCALES: {name: _if(mup.enabled, each.gradient) for name, each in self._scaled(mup, h).items()}}

    def _init(self, key: jax.Array, x: Any, h: Hparams) -> tuple[Params, Stats]:
        params, stats = self.net.init(key, x, h)
        mup = self.of(h)
        if mup is None:
            return params, stats
        found = {name: each for name, each in self._scaled(mup, h).items() if each.ratio != 1}
        factors = self._factors(mup, h, found) if found else {}

        def scaled(path: Any, value: Any) -> Any:
            name = names_of(path)
            return (value * _if(mup.enabled, factors[name])).astype(value.dtype) if name in found else value

        return jax.tree_util.tree_map_with_path(scaled, params), stats

    def _scaled(self, mup: MuP, h: Hparams) -> dict[KeyPath, "_Scaled"]:
        """Returns how each parameter of a trial is scaled."""
        base, twice, own = (self._shapes(each) for each in (_with(h, mup, 1), _with(h, mup, 2), h))
        if base == twice:
            names = ", ".join(mup.base)
            allowed = f"must change the shape of a parameter; {names} at twice this changes none"
            raise InputError("MuP.base", dict(mup.base), allowed, "Name what decides on the width of the model.")
        found = {}
        for name, shape in own.items():
            axes = axes_of(name, base[name], twice[name])
            found[name] = _Scaled(multiplier_of(axes, base[name], shape, mup.rule), ratio_of(axes, base[name], shape))
        return found

    def _drawn(self, key: jax.Array, h: Hparams) -> Params:
        return self.net.init(fast(key), jax.tree.map(jnp.asarray, self.example), h)[0]

    def _shapes(self, h: Hparams) -> Shapes:
        return shapes_of(jax.eval_shape(lambda: self._drawn(jax.random.key(0), h)))

    def _factors(self, mup: MuP, h: Hparams, found: Mapping[KeyPath, "_Scaled"]) -> dict[KeyPath, jax.Array]:
        """Returns by what to multiply each parameter, of which the initializer has brought a part already."""

        def squares(h: Hparams) -> dict[KeyPath, jax.Array]:
            sizes = [prod(shape) for name, shape in self._shapes(h).items() if name in found and len(shape) > 1]
            draws = min(max((ceil_div(DRAWN, size) for size in sizes), default=1), MOST_DRAWS)

            def of(key: jax.Array) -> dict[KeyPath, jax.Array]:
                leaves = jax.tree_util.tree_leaves_with_path(self._drawn(key, h))
                return {names_of(path): jnp.mean(jnp.square(leaf.astype(jnp.float32))) for path, leaf in leaves}

            # One after the other, since a model may be large.
            drawn = jax.lax.map(of, jax.random.split(jax.random.key(0), draws))
            return {name: jnp.mean(each) for name, each in drawn.items()}

        base, own = squares(_with(h, mup, 1)), squares(h)
        factors = {}
        for name, each in found.items():
            some = (base[name] > 0) & (own[name] > 0)  # zeros stay zeros
            grown = jnp.sqrt(jnp.where(some, own[name], 1) / jnp.where(some, base[name], 1))
            power = jnp.round(2 * jnp.log(grown) / np.log(each.ratio)) / 2
            exact = jnp.asarray(each.ratio, jnp.float32) ** power
            found_already = jnp.where(jnp.abs(jnp.log(grown / exact)) < CLOSE, exact, grown)
            factors[name] = each.multiplier.own_deviation / found_already
        return factors


class _Scaled(NamedTuple):
    """How a parameter is scaled: by its multiplier, and its width as a multiple of the base's."""

    multiplier: Multiplier
    ratio: float

    @property
    def gradient(self) -> float:
        """The size of its gradient: 1/m, but of the last layer, whose weights hold 1/m themselves, and its bias."""
        return 1 / self.ratio if self.multiplier.kind in ("input", "hidden") else 1.0


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
    if isinstance(value, float) and value == 1:
        return value  # in no program, where a multiplication by 1 might change how XLA rounds
    return (value if enabled else 1.0) if isinstance(enabled, bool) else jnp.where(enabled, value, 1.0)


def residual(depth: int, base_depth: int) -> float:
    """Returns by what to multiply each branch of a residual network, so that what was tuned holds at other depths.

    This is CompleteP, α = 1 (N. Dey et al., "Don't be lazy: CompleteP enables compute-efficient deep transformers",
    2025, arXiv 2505.01618). Learning rates do not depend on the depth then. ``adamw`` scales its epsilon.

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
