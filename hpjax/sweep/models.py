"""The trained models of a result: their metrics on the test split, and their predictions."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from hpjax.core.arrays import Array
from hpjax.core.errors import InputError, RunError, annotate_errors
from hpjax.core.hparams import Hparams
from hpjax.core.keys import lane_key, purpose_key, step_key
from hpjax.core.program import Program
from hpjax.core.space import Point
from hpjax.data.examples import AnyExamples, named_sets
from hpjax.data.windows import Windows
from hpjax.engine import sharding
from hpjax.engine.distributed import several
from hpjax.engine.lane import rebuilt_state
from hpjax.engine.metric_values import scalars
from hpjax.engine.one_lane import of_one_lane
from hpjax.engine.partition import Span
from hpjax.engine.settings import Setting, deciding_settings, undisturbed
from hpjax.engine.shapes import ProgramShapes
from hpjax.engine.state_tree import is_array, is_key
from hpjax.engine.tracing import kinds_of, lane_hparams, with_user_lines
from hpjax.results.result import Result
from hpjax.results.store.differences import how_to_set
from hpjax.sweep.planning.plan import Plan
from hpjax.sweep.planning.planner import plan_next_round
from hpjax.sweep.planning.programs import mesh_of
from hpjax.sweep.running.scores import observed
from hpjax.sweep.spec import SweepSpec

# Examples that one call computes: as many as fit any device, enough to keep it busy.
BLOCK = 512


@contextmanager
def as_trained(settings: Mapping[str, Setting]) -> Iterator[None]:
    """Turns JAX's debugging switches off for its body.

    Args:
      settings: the settings of JAX under which models were trained, by name.

    Raises:
      RunError: they are others now, and decide bits.
    """
    if remedy := how_to_set(settings, deciding_settings()):
        raise RunError(f"the models would compute other bits than in training.{remedy}")
    with undisturbed():
        yield


class TrainedModels:
    """The trained models of a result, rebuilt from its states by the sweep that trained them.

    A result holds numbers, and names of callables; the sweep has the program and the callables.

    Args:
      spec: what the sweep was asked for.
      first: the plan of its first round.
      result: of this sweep, from ``run`` or from ``hpx.load``.
    """

    def __init__(self, spec: SweepSpec, first: Plan, result: Result) -> None:
        self._spec, self._result = spec, result
        self._plans = [first]  # of one round, of two, …

    def test_metrics(self, trial: int) -> dict[str, float]:
        """Returns a trial's metrics on the test split, ``{"test/loss": 0.3, ...}``, averaged over replicates.

        Raises:
          ProgramError: the program names a metric so that no record can hold it.
          RunError: the program has no test split, or the trial has no final state.
        """
        spec, data = self._spec, self._spec.program.data
        if data is None or data.test is None:
            raise RunError("there is no test split. Write data=hpx.Data(train, valid, test).")
        with as_trained(self._result.manifest.sweep.settings):
            return self._tested(spec, data.test, trial)

    def _tested(self, spec: SweepSpec, split: Any, trial: int) -> dict[str, float]:
        """Returns a trial's metrics on a split, averaged over replicates."""
        plan, h = self.plan_of(trial), self._hparams(trial)
        shapes, measure = self._shapes(trial), spec.program.test or spec.program.evaluate

        def metrics(arrays: Sequence[Any], key: jax.Array, split: Any, h: Hparams) -> Any:
            return scalars("test", measure(key, rebuilt_state(spec.program, shapes, key, h, arrays), split, h))

        evaluate, found = of_one_lane(metrics, self._span(trial)), []
        for replicate, arrays in enumerate(self._arrays(trial)):
            own = trial if spec.independent else None
            lane = lane_key(spec.seed, replicate // (spec.folds or 1), own)
            # The key that the trial's next evaluation would have had.
            steps = int(self._result.lane_step[trial, replicate]) * plan.lengths[trial].microsteps
            found.append(evaluate(arrays, step_key(purpose_key(lane, "evaluate"), steps), split, h))
        return {f"test/{name}": float(np.mean([float(metrics[name]) for metrics in found])) for name in found[0]}

    def predictor(self, trial: int) -> Callable[[Any], Any]:
        """Returns a trial's final states as one function of inputs, as ``Predictor`` has it.

        Raises:
          RunError: the program cannot predict, or the trial has no final state; or, when the function is called, too,
            the settings of JAX that decide bits are others than in training.
        """
        settings = self._result.manifest.sweep.settings
        with as_trained(settings):
            shapes, h, span = self._shapes(trial), self._hparams(trial), self._span(trial)
            own = Predictor(self._spec.program, shapes, h, self._arrays(trial), span)

        def predict(x: Any) -> Any:
            with as_trained(settings):
                return own(x)

        return predict

    def points(self) -> list[Point]:
        """Returns the hyperparameters of every trial at its end as values: callables where the result has names."""
        return list(map(self._spec.space.recalled, self._result.hparams))

    def plan_of(self, trial: int) -> Plan:
        """Returns the plan up to the round that a trial belongs to.

        What the sampler saw before that round follows from the result, and so does what it proposed.
        """
        spec, result, plan = self._spec, self._result, self._plans[-1]
        while len(plan.points) <= trial:
            values, steps = result.last(spec.objective.metric), result.curves("step")
            taken = np.nan_to_num(steps).max(axis=(1, 2), initial=0)
            points = [spec.space.recalled(own) for own in result.hparams[: len(plan.points)]]
            history = observed(spec.objective, plan.rounds, points, values, taken)
            with undisturbed():
                plan = plan_next_round(spec, plan, history)
            self._plans.append(plan)
        return next(plan for plan in self._plans if trial < len(plan.points))

    def _hparams(self, trial: int) -> Hparams:
        """Returns the hyperparameters of a trial at its end as its lanes had them: arrays where they are traced."""
        traced = {v.name for v in self.plan_of(trial).verdicts if v.traced}
        return lane_hparams(kinds_of(self._spec.space), self.points()[trial], traced)

    def _arrays(self, trial: int) -> list[list[Array]]:
        """Returns the arrays of the final state of each replicate of a trial."""
        replicates = range(self._spec.lanes_a_trial)
        return [[leaf for _, leaf in self._result.leaves(trial, r)] for r in replicates]

    def _span(self, trial: int) -> Span | None:
        """Returns the devices that compute what is asked of a trial, as many as it spans; None for one, or too few."""
        spec, plan, group = self._spec, self.plan_of(trial), int(self._result.groups[trial])
        if spec.devices_per_lane == 1:
            return None
        if several():  # all of them compute it together
            mesh = mesh_of(spec)
        else:
            given = spec.devices if isinstance(spec.devices, tuple) else jax.local_devices()[: spec.devices]
            if len(given) < spec.devices_per_lane:
                return None
            mesh = sharding.mesh(given[: spec.devices_per_lane], spec.devices_per_lane)
        return Span(mesh, plan.partitions[group], gathers=False)

    def _shapes(self, trial: int) -> ProgramShapes:
        """Returns what tracing found out about the program of a trial."""
        return self.plan_of(trial).shapes[int(self._result.groups[trial])]


class Predictor:
    """The trained states of a trial as a function of inputs; compiles once for each power of two of examples.

    Args:
      program: with ``predict``.
      shapes: what tracing found out about it.
      h: the trial's hyperparameters as its lanes had them: arrays where they are traced.
      states: the arrays of the final state of each replicate.
      span: the devices that compute it together, None for one.

    Raises:
      RunError: the program cannot predict.
    """

    def __init__(
        self,
        program: Program,
        shapes: ProgramShapes,
        h: Hparams,
        states: Sequence[Sequence[Array]],
        span: Span | None = None,
    ) -> None:
        if program.predict is None:
            raise RunError(
                "the program does not say how to predict. "
                "Write hpx.Program(..., predict=lambda state, x, h: outputs), or use hpx.supervised(...)."
            )
        self._states, self._h, predict = states, h, annotate_errors("Program.predict", program.predict)
        valid = next(iter(named_sets(program.splits[1]).values()), None)
        self._example = valid.x if isinstance(valid, AnyExamples | Windows) else None

        def outputs(arrays: Sequence[Any], x: Any, h: Hparams) -> Any:
            rows = len(jax.tree.leaves(x)[0])
            found = predict(rebuilt_state(program, shapes, lane_key(0, 0), h, arrays), x, h)
            return jax.tree.map(lambda leaf: leaf if _has_rows(leaf, rows) else None, found)

        self._predict = of_one_lane(outputs, span)

    def __call__(self, x: Any) -> Any:
        """Returns the outputs of every replicate, arrays (replicates, examples, ...); None for other outputs.

        Args:
          x: array or pytree of arrays, each (examples, ...).

        Raises:
          InputError: there are no inputs, or arrays of different lengths.
        """
        x = jax.tree.map(np.asarray, x)
        counts = {leaf.shape[:1] for leaf in jax.tree.leaves(x)}
        if len(counts) != 1 or counts <= {(), (0,)}:
            shapes = [leaf.shape for leaf in jax.tree.leaves(x)]
            allowed = "must have one row an example, and at least one"
            raise InputError("predict.x", shapes, allowed, "Write predict(x[None]) for one example.")
        ((count,),) = counts
        self._check(x)
        blocks = [self._block(x, range(start, min(start + BLOCK, count))) for start in range(0, count, BLOCK)]
        return jax.tree.map(lambda *parts: np.concatenate(parts, axis=1), *blocks)

    def _check(self, x: Any) -> None:
        """Raises ``InputError`` unless examples have the shape of those in the validation split."""
        if self._example is not None:
            found, wanted = (jax.tree.map(lambda leaf: leaf.shape[1:], tree) for tree in (x, self._example))
            if found != wanted:
                remedy = "Write predict(x.reshape(len(x), ...)), or predict(x[None]) for one example."
                raise InputError("predict.x", found, f"must have examples of shape {wanted}", remedy)

    def _block(self, x: Any, rows: range) -> Any:
        """Returns the outputs for some rows of the inputs, (replicates, rows, ...)."""
        # Copies of the first row fill the block up to a power of two, so that few sizes compile.
        padded = [*rows, *[rows[0]] * ((1 << (len(rows) - 1).bit_length()) - len(rows))]
        some = jax.tree.map(lambda leaf: leaf[padded], x)
        try:
            outputs = [self._predict(state, some, self._h) for state in self._states]
        except Exception as error:
            raise with_user_lines(error) from None
        if not jax.tree.leaves(outputs):
            shapes = [leaf.shape[1:] for leaf in jax.tree.leaves(x)]
            allowed = "gives no output that has a row an example"
            raise InputError("predict.x", shapes, allowed, "Keep the examples' axis in Program.predict.")
        return jax.tree.map(lambda *each: np.stack([np.asarray(a)[: len(rows)] for a in each]), *outputs)


def _has_rows(leaf: Any, rows: int) -> bool:
    """Returns whether an output is an array of numbers with so many rows."""
    return is_array(leaf) and jnp.shape(leaf)[:1] == (rows,) and not is_key(leaf)
