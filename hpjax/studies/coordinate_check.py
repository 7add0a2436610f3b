"""The coordinate check: how the size of activations, and of their updates, depends on the width of a model."""

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from hpjax.core.arrays import Floats
from hpjax.core.errors import InputError, check_int, did_you_mean
from hpjax.core.hparams import Hparams
from hpjax.core.keys import lane_key, purpose_key, step_key
from hpjax.core.program import Program
from hpjax.data.examples import AnyExamples, examples_in, named_sets, take
from hpjax.data.windows import Windows
from hpjax.results import picture_file
from hpjax.studies import plot

# The name of what the whole model gives.
OUTPUT = "output"
# So many examples of the validation split are looked at.
EXAMPLES = 64


class CoordinateCheck(NamedTuple):
    """How activations depend on the width; ``print`` it.

    Attributes:
      widths: ascending.
      layers: the paths of the layers, sorted, and at last ``"output"``, what the model gives.
      sizes: float (layers, widths), the root mean square of what a layer gives after the last step, over examples,
        units and seeds.
      updates: float (layers, widths), that of its change since before the first step.
    """

    widths: tuple[int, ...]
    layers: tuple[str, ...]
    sizes: Floats
    updates: Floats

    @property
    def slopes(self) -> dict[str, float]:
        """The slope d log update / d log width of each layer, by least squares: near 0 where rates hold at all widths.

        NaN where a layer does not change.
        """
        return self._slopes_of(self.updates)

    @property
    def size_slopes(self) -> dict[str, float]:
        """The slope d log size / d log width of each layer."""
        return self._slopes_of(self.sizes)

    def _slopes_of(self, values: Floats) -> dict[str, float]:
        with np.errstate(divide="ignore", invalid="ignore"):
            logs = np.log(values)
        x = np.log(self.widths)
        return {
            layer: float(np.polyfit(x, y, 1)[0]) if np.isfinite(y).all() else np.nan
            for layer, y in zip(self.layers, logs, strict=True)
        }

    def plot(self, path: Any = None) -> Any:
        """Draws sizes and updates against the width, a line a layer.

        Args:
          path: where to save the picture, if anywhere.

        Returns:
          The ``matplotlib`` figure.

        Raises:
          ImportError: matplotlib is missing; the message says how to install it.
        """
        figure = plot.coordinates(self)
        if path is not None:
            picture_file.save(figure, path)
        return figure

    def __str__(self) -> str:
        long = max(map(len, (*self.layers, "layer")))
        lines = [f"{'layer':{long}}  update at width {self.widths[0]} … {self.widths[-1]}   slope   slope of the size"]
        for at, layer in enumerate(self.layers):
            ends = f"{self.updates[at, 0]:<10.3g} … {self.updates[at, -1]:<10.3g}"
            lines.append(f"{layer:{long}}  {ends}  {self.slopes[layer]:+11.2f}   {self.size_slopes[layer]:+.2f}")
        return "\n".join(lines)


def coordinate_check(
    program: Program,
    hparams: Mapping[str, Any],
    *,
    width: str = "width",
    widths: Sequence[int],
    steps: int = 3,
    seeds: int = 4,
) -> CoordinateCheck:
    """Trains a program for a few steps at several widths, and returns how its activations depend on the width.

    G. Yang et al., "Tensor Programs V", 2022, arXiv 2203.03466, Appendix D.1: what layers give, and its change in
    training, has a size that does not depend on the width under μP; under the standard parametrization it grows.

    Every seed draws initial parameters and batches of its own, as a lane of a sweep does. The seeds of a width are one
    program.

    Args:
      program: of ``hpx.supervised``, whose model is one of Linen or NNX and reads the width.
      hparams: name to value of its other hyperparameters.
      width: the hyperparameter that is the width.
      widths: its values, two at least; the more they differ the better.
      steps: optimizer steps.
      seeds: over so many the squares of activations are averaged.

    Raises:
      InputError: the layers of the program are not known, or the widths cannot be used.

    Example:
      >>> program = hpx.supervised(
      ...     model=lambda h: nn.Sequential([nn.Dense(h.width), nn.relu, nn.Dense(h.width), nn.relu, nn.Dense(10)]),
      ...     optimizer=lambda h: optax.adam(h.learning_rate), mup=lambda h: hpx.mup.MuP({"width": 64}, enabled=h.mup),
      ...     loss=optax.softmax_cross_entropy_with_integer_labels, data=hpx.data.digits(), batch_size=64, steps=10)
      >>> wide = [64, 128, 256]
      >>> flat = coordinate_check(program, {"learning_rate": 0.01, "mup": True}, widths=wide)
      >>> growing = coordinate_check(program, {"learning_rate": 0.01, "mup": False}, widths=wide)
      >>> abs(flat.slopes["layers_2"]) < 0.1, growing.slopes["layers_2"] > 0.3
      (True, True)
    """
    widths = _checked(program, hparams, width, widths)
    steps, seeds = check_int("coordinate_check.steps", steps), check_int("coordinate_check.seeds", seeds)
    found = [_measured(program, Hparams({**hparams, width: each}), steps, seeds) for each in widths]
    layers = tuple(sorted(found[0], key=_place))
    for each, size in zip(found, widths, strict=True):
        if each.keys() != found[0].keys():
            allowed = f"must have the layers that it has at {widths[0]}; at {size} it has {', '.join(each)}"
            raise InputError("coordinate_check.program", ", ".join(layers), allowed, "Vary the width alone.")
    sizes, updates = (np.array([[each[layer][i] for each in found] for layer in layers], float) for i in (0, 1))
    return CoordinateCheck(widths, layers, sizes, updates)


def _checked(program: Program, hparams: Mapping[str, Any], width: str, widths: Sequence[int]) -> tuple[int, ...]:
    """Returns the widths in order. Raises ``InputError`` where something cannot be used."""
    if program.activations is None:
        allowed = "must be one of hpx.supervised whose model is of Linen or NNX, so that its layers are known"
        remedy = "Write hpx.Program(..., activations=lambda state, x, h: {layer: array})."
        raise InputError("coordinate_check.program", type(program).__name__, allowed, remedy)
    if not isinstance(program.splits[0], AnyExamples | Windows):
        allowed = "must have a training split of examples, of which batches are drawn"
        raise InputError("coordinate_check.program", "data", allowed, "Write data=hpx.data.from_arrays(x, y).")
    if width in hparams:
        raise InputError(
            "coordinate_check.hparams", width, "must not be among them", f"Write widths=[{hparams[width]}, …]."
        )
    remedy = "Write widths=[64, 128, 256, 512]."
    if isinstance(widths, str) or not isinstance(widths, Iterable):
        raise InputError("coordinate_check.widths", widths, "must be a list of whole numbers", remedy)
    widths = list(widths)
    found = tuple(sorted({check_int("coordinate_check.widths", each) for each in widths}))
    if len(found) < 2:
        raise InputError("coordinate_check.widths", widths, "must be two at least", remedy)
    shapes = [
        jax.eval_shape(lambda size=size: program.init(jax.random.key(0), Hparams({**hparams, width: size})))
        for size in found
    ]
    if _leaf_shapes(shapes[0]) == _leaf_shapes(shapes[1]):
        known = did_you_mean(width, hparams)
        allowed = f"must change the shape of a parameter; {found[0]} and {found[1]} give equal ones"
        raise InputError("coordinate_check.width", width, allowed, known)
    return found


def _place(layer: str) -> Any:
    """Returns what layers are sorted by: their names, with numbers by their values, and what the model gives last."""
    parts = [(part.isdecimal(), int(part) if part.isdecimal() else part) for part in re.split(r"(\d+)", layer)]
    return layer == OUTPUT, parts


def _leaf_shapes(tree: Any) -> list[tuple[int, ...]]:
    return [leaf.shape for leaf in jax.tree.leaves(tree)]


def _measured(program: Program, h: Hparams, steps: int, seeds: int) -> dict[str, tuple[float, float]]:
    """Returns the size of what each layer gives, and of its change, over the seeds."""
    train, valid = program.splits
    looked_at = next(iter(named_sets(valid).values()))
    x = take(looked_at, jnp.arange(min(EXAMPLES, examples_in(looked_at)))).x
    train = jax.tree.map(jnp.asarray, train)
    calls = steps * program.length(h).microsteps

    def of_seed(key: jax.Array) -> Any:
        state = program.init(purpose_key(key, "init"), h)
        before = program.activations(state, x, h)  # type: ignore[misc]

        def step(state: Any, number: jax.Array) -> Any:
            batch = program.batch(purpose_key(key, "batch"), number, train, h)
            return program.step(step_key(purpose_key(key, "step"), number), state, batch, h)[0], None

        state, _ = jax.lax.scan(step, state, jnp.arange(calls))
        after = program.activations(state, x, h)  # type: ignore[misc]
        return {layer: (_square(after[layer]), _square(after[layer] - before[layer])) for layer in after}

    keys = jnp.stack([lane_key(0, seed) for seed in range(seeds)])
    squares = jax.jit(jax.vmap(of_seed))(keys)
    return {layer: (_root(size), _root(change)) for layer, (size, change) in squares.items()}


def _square(x: jax.Array) -> jax.Array:
    return jnp.mean(jnp.square(x.astype(jnp.float32)))


def _root(squares: jax.Array) -> float:
    return float(np.sqrt(np.mean(np.asarray(squares, float))))
