"""The state of a run: all that it needs to go on from where it was, as a pytree of arrays.

A checkpoint is this pytree, its leaves under their names. Checkpoints are untrusted: names, shapes and dtypes are
compared with a template before anything is loaded, and values are checked before anything is used.
"""

from collections.abc import Collection, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from hpjax.core.arrays import Array, Bools, Ints
from hpjax.core.errors import RunError
from hpjax.data.stream import Position
from hpjax.engine.lane_shards import LaneArrays, LaneShard
from hpjax.engine.shapes import Lane
from hpjax.results.store.rows import STATUSES, Change
from hpjax.sweep.running.scores import Scores

Shapes = Mapping[str, jax.ShapeDtypeStruct]
MOST = 2**31 - 1


class RunProgress(NamedTuple):
    """How far a run is; each int64 ().

    Attributes:
      round: the number of the round that trains.
      step: the call of ``step`` at which a scheduler decided last in that round; 0 before its first decision.
      done: lane-steps that were computed.
      spared: lane-steps that lanes which ended early will not take.
    """

    round: int = 0
    step: int = 0
    done: int = 0
    spared: int = 0


class Snapshot(NamedTuple):
    """A copy of one lane, as ``DeviceLanes.copy`` gives it, and the optimizer steps that it took."""

    lane: Lane
    taken: int


class WaveState(NamedTuple):
    """The lanes of a wave between two device calls.

    Attributes:
      number: the number of the wave, in the order of all; int64 ().
      step: calls of ``step`` that its longest-running lanes took; int64 ().
      evaluations: how many evaluations it made; int64 ().
      finished: whether its final states are recorded; bool ().
      trial: the trial of each lane, int32 (lanes,).
      live: whether each lane runs, bool (lanes,).
      taken: optimizer steps that each lane took, int32 (lanes,).
      lost: whether a lane of the same trial diverged, bool (lanes,).
      stream: the position in the data stream, uint8 (bytes,); None without a stream.
      lanes: what this host holds of the states of the lanes; empty before the first step, and once finished.
    """

    number: int
    step: int
    evaluations: int
    finished: bool
    trial: Ints
    live: Bools
    taken: Ints
    lost: Bools
    stream: Array | None
    lanes: tuple[LaneShard, ...]

    @classmethod
    def begin(cls, number: int, trial: Ints, streaming: bool) -> "WaveState":
        """Returns the state of a wave before its first step.

        Args:
          number: the number of the wave.
          trial: the trial of each lane, int32 (lanes,).
          streaming: whether it trains on a data stream.
        """
        lanes = len(trial)
        return cls(
            number=number,
            step=0,
            evaluations=0,
            finished=False,
            trial=trial,
            live=np.ones(lanes, bool),
            taken=np.zeros(lanes, np.int32),
            lost=np.zeros(lanes, bool),
            stream=Position().packed() if streaming else None,
            lanes=(),
        )

    @property
    def trials(self) -> tuple[int, ...]:
        """The trials of the wave, each once, in the order of its lanes."""
        return tuple(dict.fromkeys(self.trial.tolist()))

    def of(self, trials: Collection[int], number: int) -> "WaveState":
        """Returns the state of some of the trials, as that of a wave of another number."""
        mine = np.isin(self.trial, list(trials))
        rows = {name: getattr(self, name)[mine] for name in ("trial", "live", "taken", "lost")}
        lanes = tuple(shard.of(np.flatnonzero(mine).astype(np.int32)) for shard in self.lanes)
        return self._replace(number=number, lanes=lanes, **rows)

    def begun(self) -> "WaveState":
        """Returns the state of the wave before its first step, after as many evaluations."""
        begin = WaveState.begin(self.number, self.trial, streaming=self.stream is not None)
        return begin._replace(evaluations=self.evaluations)

    def check(self, trial: Ints, like: LaneArrays) -> None:
        """Validates the lanes, and what they hold, if they hold anything.

        Args:
          trial: the trial of each lane that the wave must have, int32 (lanes,).
          like: what the arrays of a lane of its group are.

        Raises:
          RunError: they are other lanes, or lanes of another program.
        """
        if not np.array_equal(self.trial, trial):
            raise RunError(f"the lanes of wave {self.number} are not those of its trials")
        for shard in self.lanes:
            like.check(shard, len(trial))


class RunState(NamedTuple):
    """The state of a run between two events.

    Attributes:
      progress: how far the run is.
      scores: the scores of all trials.
      status: the index in ``STATUSES`` of each lane's status, int8 (trials, replicates); 0 for trials to come.
      lane_step: optimizer step at which each lane's status last changed, int64 (trials, replicates).
      clones: how often a trial went on from the state of another, int64 ().
      seconds: how long the run took so far, float64 ().
      widths: lanes that a device computes at once, int64 (groups,).
      waves: the states of the waves of the current round.
    """

    progress: RunProgress
    scores: Scores
    status: Array
    lane_step: Array
    clones: int
    seconds: float
    widths: Array
    waves: tuple[WaveState, ...]

    def changes(self, begun: int) -> list[Change]:
        """Returns the status of every lane of the first ``begun`` trials, as rows of the database."""
        ids = np.indices((begun, self.status.shape[1])).reshape(2, -1).tolist()
        rows = (*ids, self.status[:begun].reshape(-1).tolist(), self.lane_step[:begun].reshape(-1).tolist())
        return [Change(t, r, STATUSES[status], step) for t, r, status, step in zip(*rows, strict=True)]

    def arrays(self) -> dict[str, Array]:
        """Returns the leaves by name, such as ``waves/0/trial``."""
        leaves = jax.tree_util.tree_leaves_with_path(self)
        return {jax.tree_util.keystr(path, simple=True, separator="/"): np.asarray(leaf) for path, leaf in leaves}


class RunSizes(NamedTuple):
    """What the sizes of a run's state follow from.

    Attributes:
      trials: how many trials all rounds have.
      replicates: how many lanes a trial has.
      rounds: how many trials each round has.
      racing: whether a scheduler compares trials.
      streaming: whether the train split is a data stream.
    """

    trials: int
    replicates: int
    rounds: tuple[int, ...]
    racing: bool
    streaming: bool

    def template(self, found: Shapes) -> RunState:
        """Returns a state of ``ShapeDtypeStruct``s: the shapes and dtypes that a checkpoint of this run must have.

        Args:
          found: name to shape and dtype in the checkpoint. The sizes that depend on where and how long the run ran are
            taken from it: how many waves, lanes, leaves, groups and evaluations there are.
        """
        number, count = _struct((), np.int64), _count(found, "waves/")
        grid, evaluations = (self.trials, self.replicates), _size(found, "scores/curves", 1)
        curves = _struct((self.trials, evaluations), np.float64) if self.racing else None
        scores = Scores(_struct(grid, np.float64), _struct(grid[:1], np.int64), _struct(grid[:1], np.bool_), curves)
        return RunState(
            RunProgress(number, number, number, number),
            scores,
            status=_struct(grid, np.int8),
            lane_step=_struct(grid, np.int64),
            clones=number,
            seconds=_struct((), np.float64),
            widths=_struct((_size(found, "widths", 0),), np.int64),
            waves=tuple(self._wave(found, f"waves/{i}/") for i in range(count)),
        )

    def _wave(self, found: Shapes, name: str) -> WaveState:
        """Returns the template of one wave, which has this prefix in its names."""
        lanes, number = _size(found, f"{name}trial", 0), _struct((), np.int64)
        rows: Any = tuple(_shard(found, f"{name}lanes/{i}/") for i in range(_count(found, f"{name}lanes/")))
        stream = _struct((_size(found, f"{name}stream", 0),), np.uint8) if self.streaming else None
        whole, flags = _struct((lanes,), np.int32), _struct((lanes,), np.bool_)
        ends = _struct((), np.bool_)
        return WaveState(number, number, number, ends, whole, flags, whole, flags, stream, rows)

    def check(self, found: Shapes) -> None:
        """Raises ``RunError`` unless arrays of these names, shapes and dtypes are a state of this run."""
        _compare(_named(self.template(found)), found)

    def read(self, arrays: Mapping[str, Array]) -> RunState:
        """Returns the state that was saved as these arrays, which ``check`` accepted.

        Raises:
          RunError: a value is not one that a run of these sizes writes.
        """
        template = self.template({name: _struct(a.shape, a.dtype) for name, a in arrays.items()})
        tree = jax.tree.structure(template)
        state: RunState = jax.tree.unflatten(tree, [arrays[name] for name in _named(template)])
        self._check_values(state)
        waves = tuple(
            wave._replace(
                number=int(wave.number),
                step=int(wave.step),
                evaluations=int(wave.evaluations),
                finished=bool(wave.finished),
            )
            for wave in state.waves
        )
        progress = RunProgress(*map(int, state.progress))
        return state._replace(progress=progress, clones=int(state.clones), seconds=float(state.seconds), waves=waves)

    def _check_values(self, state: RunState) -> None:
        """Raises ``RunError`` where a value is not one that a run of these sizes writes."""
        _within("its progress/round", state.progress.round, len(self.rounds) - 1)
        for name in ("step", "done", "spared"):
            _within(f"its progress/{name}", getattr(state.progress, name), 2**63 - 1)
        _within("its clones", state.clones, MOST)
        if not (np.isfinite(state.seconds) and state.seconds >= 0):
            raise RunError(f"its seconds are {state.seconds}, and must be 0 or more")
        _within("its status", state.status, len(STATUSES) - 1)
        _within("its lane_step", state.lane_step, MOST)
        _within("its scores/steps", state.scores.steps, MOST)
        _within("its widths", state.widths, MOST, least=1)
        numbers = [int(wave.number) for wave in state.waves]
        if not numbers or numbers[0] < 0 or numbers != [*range(numbers[0], numbers[0] + len(numbers))]:
            raise RunError(f"its waves are {numbers[:9]}, and must have consecutive numbers")
        for wave, name in ((wave, f"its waves/{i}") for i, wave in enumerate(state.waves)):
            if not len(wave.trial):
                raise RunError(f"{name} has no lanes")
            _within(f"{name}/trial", wave.trial, self.trials - 1)
            for field in ("step", "evaluations", "taken"):
                _within(f"{name}/{field}", getattr(wave, field), MOST)
            if wave.stream is not None:
                Position.unpacked(wave.stream)


def _shard(found: Shapes, name: str) -> Any:
    """Returns the template of a part of a wave's lanes, which has this prefix in its names."""
    arrays = [found.get(f"{name}arrays/{i}") for i in range(_count(found, f"{name}arrays/"))]
    lanes = _size(found, f"{name}lanes", 0)
    # An array that another host has is empty here.
    own: Any = tuple(
        each and _struct((lanes if each.shape[:1] != (0,) else 0, *each.shape[1:]), each.dtype) for each in arrays
    )
    return LaneShard(_struct((lanes,), np.int32), _struct((3,), np.int32), own)


def statuses_of(lanes: Sequence[Change], trials: int, replicates: int) -> tuple[Array, Array]:
    """Returns the status and the step of each lane as arrays (trials, replicates), int8 and int64."""
    status, step = np.zeros((trials, replicates), np.int8), np.zeros((trials, replicates), np.int64)
    for lane in lanes:
        status[lane.trial, lane.replicate] = STATUSES.index(lane.status)
        step[lane.trial, lane.replicate] = lane.step
    return status, step


def _struct(shape: Sequence[int], dtype: Any) -> Any:
    return jax.ShapeDtypeStruct(tuple(shape), np.dtype(dtype))


def _named(template: RunState) -> dict[str, Any]:
    """Returns the leaves of a template by name."""
    leaves = jax.tree_util.tree_leaves_with_path(template)
    return {jax.tree_util.keystr(path, simple=True, separator="/"): leaf for path, leaf in leaves}


def _count(found: Shapes, start: str) -> int:
    """Returns how many numbered parts there are below a name."""
    return len({name.removeprefix(start).partition("/")[0] for name in found if name.startswith(start)})


def _size(found: Shapes, name: str, axis: int) -> int:
    """Returns the size of one axis of an array; 0 where the array is missing, about which ``_compare`` complains."""
    return found[name].shape[axis] if name in found and len(found[name].shape) > axis else 0


def _compare(template: Shapes, found: Shapes) -> None:
    """Raises ``RunError`` unless all names of a template are there, no others, and with its shapes and dtypes."""
    for name, wanted in template.items():
        if name not in found:
            raise RunError(f"{name} is missing")
        there = found[name]
        if there.shape != wanted.shape or there.dtype != wanted.dtype:
            raise RunError(f"{name} is {there.dtype} {there.shape}, and must be {wanted.dtype} {wanted.shape}")
    if more := found.keys() - template.keys():
        raise RunError(f"{min(more)} is nothing that a run of this sweep writes")


def _within(name: str, values: Any, most: int, least: int = 0) -> None:
    """Raises ``RunError`` unless all numbers of an array are in a range."""
    values = np.asarray(values)
    if values.size and not (values.min() >= least and values.max() <= most):
        raise RunError(f"{name} has numbers outside {least} … {most}")
