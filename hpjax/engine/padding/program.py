"""Makes one padded program of those of several groups, whose state has arrays as large as any of them needs."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from hpjax.core.arrays import Array
from hpjax.core.hparams import Hparams, unread
from hpjax.core.keys import lane_key
from hpjax.core.program import Arrays, Program
from hpjax.engine.lane import settled
from hpjax.engine.metric_values import scalars
from hpjax.engine.padding.rules import rule_of
from hpjax.engine.padding.values import Fill, NotPaddableError, Padded, filled
from hpjax.engine.padding.walk import evaluate, sizes_of
from hpjax.engine.probe import trace_program
from hpjax.engine.settings import deciding_settings
from hpjax.engine.shapes import ProgramShapes, float_type, unwrap_keys
from hpjax.engine.state_tree import StateTree, arrays_of

# The hyperparameter of a padded program that says which of its programs a lane has. No name in a space has a space.
NUMBER = "program number"


class PaddedProgram(NamedTuple):
    """One program in place of several.

    Attributes:
      program: the program; its hyperparameters are those that ``padded_hparams`` gives. None in a plan that was
        pickled.
      shapes: what tracing found out about it.
    """

    program: Program
    shapes: ProgramShapes


def padded_hparams(h: Hparams, number: Any) -> Hparams:
    """Returns the hyperparameters that a padded program takes: those that are traced, and the number of its program.

    Args:
      h: the hyperparameters of the program that it stands for.
      number: its number among those that the padded program is made of, int32, of the shape of the leaves.
    """
    return Hparams({**_traced(h), NUMBER: number}, [*_traced(h), NUMBER])


def _traced(h: Hparams) -> dict[str, Any]:
    """Returns the hyperparameters that are traced, by name, but for the number of a program."""
    names = dict.fromkeys(path[0].name for path, _ in jax.tree_util.tree_leaves_with_path(h))
    return {name: unread(h)[name] for name in names if name != NUMBER}


def resized(array: Array, shape: Sequence[int]) -> Array:
    """Returns an array of another shape: along each axis without its end, or with zeros at its end."""
    if array.shape == tuple(shape):
        return array
    kept = array[tuple(slice(0, size) for size in shape)]
    return np.pad(kept, [(0, size - own) for size, own in zip(shape, kept.shape, strict=True)])


def without_padding(arrays: Sequence[Any], shapes: ProgramShapes) -> list[Array]:
    """Returns the arrays of the states of some lanes, each (lanes, ...), in the shapes that their own program has."""
    own = [like.shape for like in unwrap_keys(shapes.state)]
    return [resized(np.asarray(array), (len(array), *shape)) for array, shape in zip(arrays, own, strict=True)]


def padded_program(
    program: Program, hparams: Sequence[Hparams], shapes: Sequence[ProgramShapes], train: Arrays, valid: Arrays
) -> PaddedProgram:
    """Returns one program that computes what a program does for several values of its static hyperparameters.

    Its state is a tuple of arrays, those of the program with zeros at the end of the axes that may be shorter.

    Args:
      program: the program.
      hparams: the hyperparameters for each number; their leaves, the traced ones, are ``ShapeDtypeStruct``s of ().
      shapes: what tracing the program with each of them found out.
      train, valid: ``ShapeDtypeStruct``s of the splits.

    Raises:
      NotPaddableError: the programs differ in more than sizes and constants, or compute what has no rule.
    """
    # Equal keys mean equal programs, of which one is compiled.
    types = [(leaf.shape, str(leaf.dtype)) for leaf in jax.tree.leaves((list(hparams), train, valid))]
    key = tuple(map(jax.tree.structure, hparams)), tuple(types), tuple(deciding_settings().values())
    if key not in program.derived:
        program.derived[key] = _made(program, hparams, shapes, train, valid)
    found: PaddedProgram = program.derived[key]
    return found


def _made(
    program: Program, hparams: Sequence[Hparams], shapes: Sequence[ProgramShapes], train: Arrays, valid: Arrays
) -> PaddedProgram:
    """Returns what ``padded_program`` does, made anew."""
    first, trees = shapes[0], [each.tree for each in shapes if each.tree is not None]
    names = [(each.names, each.train, each.inspected, each.valid) for each in shapes]
    if any(each != names[0] for each in names):
        raise NotPaddableError("their states or metrics have different names")
    if len(trees) < len(shapes):
        raise NotPaddableError("functions in their states may depend on hyperparameters")
    key, step = jax.eval_shape(lane_key, 0, 0), jax.ShapeDtypeStruct((), jnp.int32)
    number: Any = jax.ShapeDtypeStruct((), float_type())
    seen = dict.fromkeys(first.metrics, number)
    states, every = [each.state for each in shapes], range(len(shapes))
    types = [leaf.dtype for leaf in first.state]

    def init(key: jax.Array, h: Hparams) -> Any:
        arrays = arrays_of(program.init(key, h))
        return tuple(settled(x, dtype) for x, dtype in zip(arrays, types, strict=True))

    def stepping(tree: StateTree) -> Callable[..., Any]:
        def advance(key: jax.Array, arrays: Any, batch: Any, h: Hparams) -> Any:
            state, metrics = program.step(key, tree.fill(arrays), batch, h)
            return arrays_of(state), scalars("step", metrics)

        return advance

    def looking(where: str) -> Callable[[StateTree], Callable[..., Any]]:
        look = getattr(program, where)
        return lambda tree: lambda key, arrays, split, h: scalars(where, look(key, tree.fill(arrays), split, h))

    def reacting(tree: StateTree) -> Callable[..., Any]:
        def react(arrays: Any, metrics: Any, h: Hparams) -> Any:
            state, done = program.react(tree.fill(arrays), metrics, h)
            return arrays_of(state), jnp.asarray(done)

        return react

    def finishing(tree: StateTree) -> Callable[..., Any]:
        return lambda arrays, h: arrays_of(program.finish(tree.fill(arrays), h))

    batch = _Joint([program.batch] * len(shapes), [(key, step, train, h) for h in hparams])
    if len({str(shapes) for shapes in batch.shapes}) > 1:
        raise NotPaddableError("their batches have different sizes")
    start = _Joint([init] * len(shapes), [(key, h) for h in hparams])
    advance = _Joint(list(map(stepping, trees)), [(key, states[i], batch.shapes[i], hparams[i]) for i in every])
    look = _Joint(list(map(looking("evaluate"), trees)), [(key, states[i], valid, hparams[i]) for i in every])
    changed: dict[str, Any] = {}
    if program.inspect is not None:
        given = [(key, states[i], train, hparams[i]) for i in every]
        changed["inspect"] = _Joint(list(map(looking("inspect"), trees)), given)
    if program.reacts:
        react = _Joint(list(map(reacting, trees)), [(states[i], seen, hparams[i]) for i in every])
        changed["react"] = react
    if program.finishes:
        changed["finish"] = _Joint(list(map(finishing, trees)), [(states[i], hparams[i]) for i in every])
    if program.names_parameters:
        changed["parameters"] = lambda arrays: program.parameters(trees[0].fill(arrays))
    made = replace(
        program,
        init=start,
        step=advance,
        evaluate=look,
        batch=batch,
        test=None,
        predict=None,
        activations=None,
        artifacts=None,
        batches=None,
        **changed,
    )
    h = padded_hparams(hparams[0], jax.ShapeDtypeStruct((), jnp.int32))
    traced = trace_program(made, h, train, valid)
    # Padding adds no operation that may fail for many lanes.
    doubts = tuple(dict.fromkeys(doubt for each in shapes for doubt in each.uncertain))
    return PaddedProgram(made, traced._replace(uncertain=doubts))


class _Joint:
    """A function that several programs have, as one. Its last argument are the hyperparameters of ``padded_hparams``.

    Args:
      functions: the function of each.
      given: the arguments of each, pytrees of arrays or ``ShapeDtypeStruct``s.

    Attributes:
      shapes: what each gives, as ``ShapeDtypeStruct``s.
    """

    def __init__(self, functions: Sequence[Callable[..., Any]], given: Sequence[tuple[Any, ...]]) -> None:
        made = [jax.make_jaxpr(function, return_shape=True) for function in functions]
        traced = [make(*arguments) for make, arguments in zip(made, given, strict=True)]
        self._jaxprs, self.shapes = [closed for closed, _ in traced], [found for _, found in traced]
        leaves = [jax.tree.leaves(arguments) for arguments in given]
        if len({str(jax.tree.structure(found)) for found in self.shapes} | {len(own) for own in leaves}) > 2:
            raise NotPaddableError("their functions give or take different structures")
        self._sizes = [sizes_of(each) for each in zip(*leaves, strict=True)]

    def __call__(self, *arguments: Any) -> Any:
        *own, h = arguments
        leaves, number = jax.tree.leaves((own, list(_traced(h).values()))), unread(h)[NUMBER]
        given = [Padded(leaf, sizes) for leaf, sizes in zip(leaves, self._sizes, strict=True)]
        given = [x._replace(fill=0 if x.padded else Fill.COPIES) for x in given]
        found = evaluate(self._jaxprs, given, number, rule_of)
        return jax.tree.unflatten(jax.tree.structure(self.shapes[0]), [filled(x, 0, number).array for x in found])
