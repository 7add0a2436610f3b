"""One trial of a result: what it was trained with, how it ended, and its final state."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from hpjax.core.arrays import Array
from hpjax.core.errors import InputError, RunError
from hpjax.core.format import metric as number
from hpjax.core.format import show

if TYPE_CHECKING:
    from hpjax.results.result import Result


class Trial:
    """One trial of a result.

    Attributes:
      id: its number, which never changes.
      hparams: name to value.
    """

    def __init__(self, result: "Result", id: int) -> None:
        self._result, self.id = result, id
        self.hparams: dict[str, Any] = result.hparams[id]

    @property
    def result(self) -> "Result":
        """What it is a trial of."""
        return self._result

    @property
    def descent(self) -> list[tuple[int, int, dict[str, Any]]]:
        """Which trials trained its weights: (id, optimizer step from which on, hyperparameters), oldest first.

        One entry, unless the trial or those whose state it took over went on from the states of others.
        """
        found: list[tuple[int, int, dict[str, Any]]] = []
        trial, until = self.id, np.inf
        while own := [t for t in self._result.lineage if t.trial == trial and t.step < until]:
            found.append((trial, own[-1].step, own[-1].hparams))
            trial, until = own[-1].source, own[-1].step
        return [*reversed([*found, (trial, 0, self._result.first_hparams[trial])])]

    @property
    def schedule(self) -> list[tuple[int, dict[str, Any]]]:
        """What its weights were trained with: (optimizer step from which on, hyperparameters), oldest first."""
        return [(step, hparams) for _, step, hparams in self.descent]

    @property
    def status(self) -> str:
        """``complete``, ``stopped``, ``diverged`` or ``running``; of several replicates the worst.

        ``elsewhere`` where another shard of the sweep has the trial.
        """
        return str(self._result.statuses[self.id])

    @property
    def step(self) -> int:
        """Steps that every replicate took; for a diverged trial the step at which the first one did."""
        return int(self._result.lane_step[self.id].min())

    @property
    def metrics(self) -> dict[str, float]:
        """Name to the last value, averaged over replicates; NaN for a diverged trial."""
        return {name: float(self._result.last(name)[self.id].mean()) for name in self._result.metrics}

    def curve(self, metric: str) -> Array:
        """The metric over the evaluations: (replicates, evaluations), padded with NaN."""
        own: Array = self._result.curves(metric)[self.id]
        return own

    def restore(self, replicate: int = 0) -> Any:
        """The final state of one replicate, as nested dicts of arrays, or an array where the state is one.

        For a ``supervised`` program: ``s["params"]``, ``s["opt_state"]`` and, where the model has any, ``s["stats"]``.
        A Linen model applies as ``model.apply({"params": s["params"], **s.get("stats", {})}, x)``; an NNX model takes
        them by ``nnx.update(model, s["params"])`` and ``nnx.update(model, s["stats"])``. Positions in tuples and lists
        are keys 0, 1, …; what is empty is not there.

        Raises:
          RunError: the trial diverged, its group is still running, or another shard has it.
        """
        replicates = self._result.lane_status.shape[1]
        if not 0 <= replicate < replicates:
            raise InputError("replicate", replicate, f"must lie in 0 … {replicates - 1}", "Count from 0.")
        status = self._result.lane_status[self.id, replicate]
        if status == "diverged":
            step = self._result.lane_step[self.id, replicate]
            raise RunError(f"trial {self.id} diverged at step {step}: it has no final state worth restoring.")
        tree: dict[Any, Any] = {}
        for path, array in self._result.leaves(self.id, replicate):
            node = tree
            for name in path[:-1]:
                node = node.setdefault(name, {})
            if not path:
                return array
            node[path[-1]] = array
        return tree

    def export(self, path: str | Path, replicate: int = 0) -> None:
        """Writes the parameters of one replicate to a file, by name; no model code is needed.

        Of a ``supervised`` program what an evaluation uses: ``params``, the averaged ones with ``average=``, and beside
        them batch statistics and the like, as ``restore()["stats"]`` has them. Of another program the whole state.

        Args:
          path: ends in ``.safetensors``: arrays by names such as ``params.Dense_0.kernel``, the trial's id and
            hyperparameters in the header; needs the package safetensors. Or in ``.msgpack``: nested dicts, which
            ``flax.serialization.msgpack_restore`` reads, and ``model.apply`` of a Linen model takes. Positions in
            lists are names "0", "1", …, of which ``nnx.restore_int_paths`` makes numbers again.
          replicate: which.

        Raises:
          InputError: another suffix, or no such replicate.
          RunError: the trial diverged, or its group is still running.
        """
        from hpjax.results import export

        export.write(self, Path(path), replicate)

    def predict(self, x: Any) -> Any:
        """The outputs of the trained models for inputs.

        Args:
          x: array or pytree, (examples, ...).

        Returns:
          The program's outputs, (replicates, examples, ...); for cross-validation one model a fold. It compiles
          once for each power of two of examples.

        Raises:
          RunError: the trial diverged, the result was loaded without its sweep, or the program cannot predict.
        """
        return self._result.predictor(self.id)(x)

    def __repr__(self) -> str:
        values = ", ".join(f"{name}={show(value)}" for name, value in self.hparams.items())
        metrics = ", ".join(f"{name} {number(value)}" for name, value in self.metrics.items())
        return f"trial {self.id} ({values}): {metrics}; {self.status} at step {self.step}"
