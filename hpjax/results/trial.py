"""One trial of a result: its hyperparameters, how it ended, and its final state."""

from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, overload

from hpjax.core import html
from hpjax.core.arrays import Array, PyTree
from hpjax.core.errors import InputError, RunError
from hpjax.core.format import metric as number
from hpjax.core.format import show
from hpjax.engine.state_tree import filled_like, nested
from hpjax.results import export
from hpjax.results.store.rows import Status

if TYPE_CHECKING:
    from hpjax.results.result import Result

T = TypeVar("T")


class Trial:
    """One trial of a result, ``result[7]``.

    Attributes:
      id: the number of the trial, which never changes.
      hparams: name to value; where a scheduler changed them, the last ones.
    """

    def __init__(self, result: "Result", id: int) -> None:
        self._result, self.id = result, id
        self.hparams: dict[str, Any] = result.hparams[id]

    @property
    def result(self) -> "Result":
        """The result that it belongs to."""
        return self._result

    @property
    def descent(self) -> list[tuple[int, int, dict[str, Any]]]:
        """The trials that trained its weights: (id, first optimizer step, hyperparameters), oldest first.

        The list has one entry, unless the trial, or one that it descends from, went on from the state of another.
        """
        return self._result.descent(self.id)

    @property
    def schedule(self) -> list[tuple[int, dict[str, Any]]]:
        """The hyperparameters that trained its weights: (first optimizer step, name to value), oldest first."""
        return [(step, hparams) for _, step, hparams in self.descent]

    @property
    def status(self) -> str:
        """The status of the trial; of several replicates the worst.

        ``"complete"``, ``"stopped"``, ``"diverged"``, ``"failed"`` where its group could not be trained, or
        ``"running"``; ``"other_shard"`` where another shard of the sweep trains the trial.
        """
        return str(self._result.statuses[self.id])

    @property
    def step(self) -> int:
        """Optimizer steps that every replicate took; for a diverged trial the step at which the first one diverged."""
        return int(self._result.lane_step[self.id].min())

    @property
    def metrics(self) -> dict[str, float]:
        """Name to the value at the last evaluation, averaged over replicates; NaN for one that diverged or failed."""
        return {name: float(self._result.last(name)[self.id].mean()) for name in self._result.metrics}

    def curve(self, metric: str) -> Array:
        """Returns a metric over the evaluations: (replicates, evaluations), padded with NaN.

        Raises:
          InputError: the sweep has no such metric.
        """
        own: Array = self._result.curves(metric)[self.id]
        return own

    @property
    def artifacts(self) -> dict[str, list[tuple[int, Array]]]:
        """What the program made of the trial at evaluations: name to (optimizer step, array), in order.

        A program makes artifacts where it has ``artifacts=``, of the trials that ``Sweep(artifacts=...)`` chose: of the
        best ones at that evaluation, so that a trial may have artifacts of some evaluations only; empty where it has
        none. They are those of replicate 0, also of a trial that is still running. Arrays that the program gave within
        a pytree have names such as ``samples/mean``.

        Raises:
          RunError: a file of theirs cannot be read.

        Example:
          >>> step, samples = trial.artifacts["samples"][-1]  # doctest: +SKIP
        """
        found: dict[str, list[tuple[int, Array]]] = {}
        for step, arrays in self._result.artifacts(self.id):
            for name, array in arrays.items():
                found.setdefault(name, []).append((step, array))
        return found

    @overload
    def restore(self, replicate: int = 0, *, like: None = None) -> PyTree: ...

    @overload
    def restore(self, replicate: int = 0, *, like: T) -> T: ...

    def restore(self, replicate: int = 0, *, like: PyTree = None) -> PyTree:
        """Returns the final state of one replicate, as nested dicts of arrays, or an array where the state is one.

        A ``supervised`` program has ``s["params"]``, ``s["opt_state"]`` and, where the model has any, ``s["stats"]``.
        Evaluations use ``s["average"]`` in place of ``s["params"]`` where there is one: with ``average=``, and with
        optimizers that have parameters of their own to be evaluated at, as lookahead, schedule-free and SAM.
        A Linen model applies as ``model.apply({"params": s["params"], **s.get("stats", {})}, x)``; an NNX model takes
        them by ``nnx.update(model, s["params"])`` and ``nnx.update(model, s.get("stats", {}))``. Positions in tuples
        and lists are keys 0, 1, …; empty parts of the state are left out.

        Args:
          replicate: the number of the replicate, from 0.
          like: a state whose structure the answer has, as ``init(key, h)`` of a program of your own gives it: a Flax
            ``TrainState``, an Equinox module; or a part of one, such as ``{"params": module}``. What is no array comes
            from ``like``, whose arrays may each be a ``jax.ShapeDtypeStruct``.

        Raises:
          InputError: there is no such replicate, or ``like`` has other arrays.
          RunError: the trial diverged or failed, its group is still running, or another shard has it.
        """
        replicates = self._result.lane_status.shape[1]
        if not 0 <= replicate < replicates:
            allowed = f"must lie in 0 … {replicates - 1}"
            raise InputError("replicate", replicate, allowed, "Write replicate=0 for the first.")
        if self._result.lane_status[self.id, replicate] == Status.DIVERGED:
            step = self._result.lane_step[self.id, replicate]
            raise RunError(
                f"trial {self.id} diverged at step {step}: it has no final state worth restoring. "
                "Restore another one: result.best.restore()."
            )
        leaves, shared = self._result.leaves(self.id, replicate), self._result.shared_leaves()
        if self._is_supervised and any(name[0] == "average" for name, _ in leaves):
            # Frozen parameters are their own average.
            shared = [*shared, *((("average", *name[1:]), array) for name, array in shared)]
        leaves = [*leaves, *shared]
        if like is not None:
            return filled_like(like, leaves)
        return nested(leaves)

    def export(self, path: str | Path, replicate: int = 0) -> None:
        """Writes the parameters of one replicate to a file, by name; no model code is needed.

        For a ``supervised`` program it writes what an evaluation uses: ``params`` (``restore()["average"]`` where
        there is one), and beside them batch statistics and the like, as ``restore()["stats"]`` has them. For another
        program it writes the whole state.

        Args:
          path: ends in ``.safetensors``: arrays by names such as ``params.Dense_0.kernel``, the trial's id and
            hyperparameters in the header; needs the package safetensors. Or in ``.msgpack``: nested dicts,
            which ``flax.serialization.msgpack_restore`` reads, and ``model.apply`` of a Linen model takes. Positions
            in lists are names "0", "1", …, of which ``nnx.restore_int_paths`` makes numbers again.
          replicate: the number of the replicate, from 0.

        Raises:
          InputError: the suffix is another one, or there is no such replicate.
          RunError: the trial diverged, its group is still running, or the file cannot be written.
        """
        path = Path(path)
        export.check_path(path)  # before the state is read
        hparams = {f"hparams.{name}": show(value) for name, value in self.hparams.items()}
        header = {"trial": str(self.id), "replicate": str(replicate)} | hparams
        export.write(path, export.exported(self.restore(replicate), self._is_supervised), header)

    def predict(self, x: PyTree) -> PyTree:
        """Returns the outputs of the trained models for inputs.

        Args:
          x: array or pytree of arrays, each (examples, ...).

        Returns:
          The program's outputs, (replicates, examples, ...); with cross-validation one model per fold. Outputs that
          have no row an example, such as an auxiliary loss or a text, are None. It compiles once for each power of two
          of examples.

        Raises:
          InputError: the inputs have no examples, or another shape than those of the validation split.
          RunError: the trial diverged, the result was loaded without its sweep, or the program cannot predict.
        """
        return self._result.predictor(self.id)(x)

    @property
    def _is_supervised(self) -> bool:
        return self._result.manifest.sweep.program.get("kind") == "supervised"

    def __repr__(self) -> str:
        values = ", ".join(f"{name}={show(value)}" for name, value in self.hparams.items())
        metrics = ", ".join(f"{name} {number(value)}" for name, value in self.metrics.items())
        return f"trial {self.id} ({values}): {metrics}; {self.status} at step {self.step}"

    def _repr_html_(self) -> str:
        rows = [[name, show(value)] for name, value in self.hparams.items()]
        rows += [[name, number(value)] for name, value in self.metrics.items()]
        return html.table([f"trial {self.id}", f"{self.status} at step {self.step}"], rows)
