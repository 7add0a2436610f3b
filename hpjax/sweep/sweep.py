"""Sweep: what users write. Ask → run → tell → record."""

import json
import os
import sys
import warnings
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, field, fields, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Literal, NamedTuple

import msgspec

from hpjax.core.errors import InputError
from hpjax.core.hashing import digest
from hpjax.core.objective import Objective, minimize
from hpjax.core.program import Program
from hpjax.core.space import Space
from hpjax.core.user_code import loaded_file
from hpjax.engine.distributed import check_same, is_writer, on_writer
from hpjax.engine.partition import Rule
from hpjax.engine.settings import each_undisturbed, switched_on, undisturbed
from hpjax.results.result import Result
from hpjax.results.store.manifest import Manifest, StudyRecord, recorded_manifest
from hpjax.results.trackers import TrackedRun, Tracker
from hpjax.results.trial import Trial
from hpjax.samplers import Sampler, Sobol
from hpjax.schedulers import Scheduler
from hpjax.sweep.extend import extend as extend_run
from hpjax.sweep.identity import check_recordable, manifest
from hpjax.sweep.models import TrainedModels
from hpjax.sweep.planning.advice import advised, hints_of_script, hints_of_switches
from hpjax.sweep.planning.arrange import rearranged
from hpjax.sweep.planning.autotune import measured
from hpjax.sweep.planning.counted import with_exchanges
from hpjax.sweep.planning.padding_check import checked
from hpjax.sweep.planning.plan import Plan
from hpjax.sweep.planning.planner import plan_first_round
from hpjax.sweep.planning.targets import asked_target, planned_for
from hpjax.sweep.recorded import as_recorded
from hpjax.sweep.replay import Replay, check_result, replay
from hpjax.sweep.running.events import Event
from hpjax.sweep.running.preemption import Preempted
from hpjax.sweep.running.progress import Progress
from hpjax.sweep.running.recorder import Record
from hpjax.sweep.running.resume import open_record
from hpjax.sweep.running.runner import train
from hpjax.sweep.running.state import RunSizes
from hpjax.sweep.running.tracking import Tracking, check_trackers
from hpjax.sweep.spec import SweepSpec


class _Started(NamedTuple):
    """A run that is about to train, or to be read.

    Attributes:
      spec: the sweep as its directory records it.
      plan: its first round.
      record: where it is recorded.
      manifest: of its record.
      events: train it.
    """

    spec: SweepSpec
    plan: Plan
    record: Record
    manifest: Manifest
    events: Iterator[Event]


@dataclass(frozen=True)
class Sweep:
    """A program, a space, and how to search it. Nothing compiles or trains before ``run`` or ``events``.

    Args:
      program: what every trial does.
      space: the hyperparameters.
      trials: how many points to try; left out, all of a finite sampler's.
      rounds: in how many parts the sampler is asked for them, each time with what the parts before found; or how many
        trials each part has. A sampler that learns wants several; programs compile once for all.
      replicates: seeds a trial, from 0.
      folds: how many parts cross-validation cuts the train and valid splits into; every part is the valid split of
        a replicate, so that a trial has ``replicates * folds`` of them, number ``r`` with seed ``r // folds`` and
        fold ``r % folds``. All share one program and one copy of the data. The test split stays apart.
      sampler: proposes the points.
      scheduler: stops trials early; None lets all run to their end.
      objective: ``hpx.minimize("valid/loss")``, the default, or ``hpx.maximize(...)``.
      seed: decides every random number of the sweep.
      randomness: ``"shared"``, all trials of a replicate see the same noise and batches, or ``"independent"``.
      width: lanes that one device computes at once, a number for all groups or a tuple with one for each; by default
        as measured before, else by rule; a long run measures it while it trains. It belongs to the result: another
        width may differ in the last bits.
      kernels: ``"batched"`` has convolutions and pooling computed as matrix products, ``"xla"`` leaves them as they
        are, for all groups or in a tuple with one for each; by default measured like the width, else
        ``"xla"`` on TPUs and ``"batched"`` elsewhere.
        It belongs to the result, too.
      devices: how many devices to use; all by default, with several hosts those of all.
      spread: how lanes are spread over the devices, ``"shard_map"`` or, on one host, ``"pmap"``; the bits are the same.
      devices_per_lane: how many devices share each lane. They divide its batches, and compute what they would of a
        whole batch, batch statistics too. It belongs to the result, like the width.
      partition: how these hold its state: None, split where the model names axes ``"data"``; ``"fsdp"``, each large
        array split along its largest axis that they divide; or ``(path, shape) -> PartitionSpec`` of ``"data"``.
      segment: steps of a device call at most, of which each microbatch is one; by default all up to an evaluation.
      shard: ``(1, 4)`` trains the first of four parts of the trials, in a job that knows nothing of the others;
        ``hpx.merge`` joins them. Not with a scheduler or rounds, which decide by all trials.
      artifacts: the trials of which artifacts are kept, where the program makes any: ``"best:4"``, the default, at each
        evaluation the best by the objective of those that train together; ``"all"``; or a list of ids. They are those
        of replicate 0.
      study: the study that the sweep answers, for the manifest.

    Raises:
      InputError: a value that cannot be used, here or in ``plan``, before anything compiles.

    Example:
      >>> sweep = hpx.Sweep(program, space, trials=4)
      >>> sweep.plan().lane_steps
      40
      >>> result = sweep.run(progress=False)
      >>> result.best.status
      'complete'
    """

    program: Program
    space: Space
    trials: int | None = None
    rounds: int | tuple[int, ...] = 1
    replicates: int = 1
    folds: int | None = None
    sampler: Sampler = field(default_factory=Sobol)
    scheduler: Scheduler | None = None
    objective: Objective = field(default_factory=lambda: minimize("valid/loss"))
    seed: int = 0
    randomness: Literal["shared", "independent"] = "shared"
    width: int | tuple[int, ...] | None = None
    kernels: str | tuple[str, ...] | None = None
    devices: int | None = None
    spread: Literal["shard_map", "pmap"] = "shard_map"
    devices_per_lane: int = 1
    partition: Rule | Literal["fsdp"] | None = None
    segment: int | None = None
    shard: tuple[int, int] | str | None = None
    artifacts: str | Collection[int] | None = None
    study: StudyRecord | None = None
    spec: SweepSpec = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        asked = {each.name: getattr(self, each.name) for each in fields(self) if each.init}
        object.__setattr__(self, "spec", SweepSpec(**asked))

    def __repr__(self) -> str:
        given = {each.name: (getattr(self, each.name), each.default) for each in fields(self) if each.repr}
        made = {"sampler": Sobol(), "objective": minimize("valid/loss")}
        shown = [f"{name}={value!r}" for name, (value, plain) in given.items() if value not in (plain, made.get(name))]
        return f"Sweep({', '.join(shown)})"

    @cached_property
    def _traced(self) -> Plan:
        """The plan of the first round, whose widths go by what had been measured when it was made."""
        with undisturbed():
            plan = plan_first_round(self.spec)
        check_recordable(self.spec, plan)
        return plan

    def plan(self, measure: bool = False, *, target: str | None = None, count: int | None = None) -> Plan:
        """Returns what the sweep will do: groups, traced and static hyperparameters and why, widths, memory, time.

        Args:
          measure: whether to measure first how many lanes are best at once, for 5 seconds or 5 % of the run. A run that
            is expected to take long does so while it trains. What is found is remembered for all runs of such a
            program on this machine, and printed with the plan. Where lanes span several devices, programs are compiled
            as they will train, and the plan says how many times these exchange arrays in a step, and their bytes.
          target: devices that are not there, in place of ``devices``, for which the programs are compiled here: a slice
            of TPUs, ``"v5e:2x4"``, or a GPU, ``"h100"``. The plan has the widest width that fits and the fastest,
            memory, bytes and floating-point operations of a step, and the time that it takes at best. It needs the
            extra ``tpu-target`` or ``gpu-target``.
          count: how many devices of the target there are: of GPUs 1 by default, of a slice all.

        Raises:
          InputError, ProgramError, UnknownHyperparameterError: the sweep cannot run, or not on the target.
        """
        disturbing = switched_on()
        asked = asked_target(target, count, measure)
        with undisturbed():
            if asked is not None:
                spec = replace(self.spec, devices=asked.devices)
                plan = plan_first_round(spec)
                check_recordable(spec, plan)
                return planned_for(spec, plan, asked)
            plan = with_exchanges(self.spec, measured(self.spec, self._traced)) if measure else self._arranged()
            return advised(self.spec, plan, disturbing)

    def _arranged(self) -> Plan:
        """Returns the plan of the first round, whose widths go by what is measured by now."""
        return rearranged(self.spec, self._traced)

    def run(
        self,
        directory: str | Path | None = None,
        *,
        progress: bool = True,
        checkpoint_seconds: float = 60.0,
        extend: bool = False,
        trackers: Sequence[Tracker] = (),
        on_event: Callable[[Event], object] | None = None,
    ) -> Result:
        """Trains every trial and returns what was found.

        Args:
          directory: where the run is recorded; None keeps all in memory. A directory that holds this very
            sweep, finished, is read and nothing trains; one that was interrupted goes on from its last checkpoint,
            and ends with the bits of a run that was not. Several hosts must all see it.
          progress: whether to show how far it is, on standard error of the first host.
          checkpoint_seconds: between two checkpoints; decisions of a scheduler bring more of them. Where the state is
            so large that they would take more than 3 % of the time there are fewer; 0: one after every segment.
          extend: whether the directory may hold a finished run of this sweep with fewer trials, which are then added as
            a round of their own, or with fewer steps, which its trials then take with the bits of a longer run.
          trackers: what the first host tells of trials and evaluations: ``[hpx.trackers.TensorBoard("logs")]``.
          on_event: is called on the first host with each event, as ``events`` yields them. It and trackers have threads
            of their own. What fails of them is told by a warning, and changes nothing else.

        Raises:
          InputError, ProgramError, UnknownHyperparameterError: the sweep cannot run.
          RunError: the directory holds another sweep, or cannot be written; or another host was lost.
          Preempted: the process got SIGTERM, and wrote a checkpoint first; it exits with status 143.
        """
        check_trackers(trackers, on_event)
        run = self._start(directory, checkpoint_seconds, extend)
        store, about = run.record.store, TrackedRun.of(run.record.directory, run.manifest)
        told = (trackers, on_event) if is_writer() else ((), None)
        try:
            with (
                Progress(run.plan, progress and is_writer()) as shown,
                Tracking(about, store, *told) as tracking,
            ):
                for note in tracking.notes():
                    shown.note(note)
                for event in run.events:
                    shown.update(event)
                    tracking.update(event)
        except Preempted as notice:
            if is_writer():
                print(notice, file=sys.stderr)
            raise
        finally:  # also where something else than an event fails, while a traceback keeps the events alive
            store.unlock()
        return Result(store, run.manifest, partial(TrainedModels, run.spec, run.plan))

    def events(
        self, directory: str | Path | None = None, *, checkpoint_seconds: float = 60.0, extend: bool = False
    ) -> Iterator[Event]:
        """Trains like ``run``, and yields what happens: an event for each compilation and segment.

        Of a directory that holds this very sweep, finished, there are none; ``hpx.load`` has the result.
        """
        return self._start(directory, checkpoint_seconds, extend).events

    def replay(self, trial: Trial) -> Replay:
        """Trains one trial of a result of this sweep again, alone, and says whether every bit agrees.

        It runs the program of its group at the width that the result records, on the devices of this sweep. A stopped
        trial is trained to the step at which it was stopped; one that took over another's state begins where its
        recorded lineage does, and its own curve is compared from then on.

        Args:
          trial: ``result[7]``, of a result of ``run`` or of ``hpx.load``.

        Raises:
          InputError: it is no trial of a result.
          RunError: the result is of a different sweep, or the trial is still running.

        Example:
          >>> sweep = hpx.Sweep(program, space, trials=4)
          >>> print(sweep.replay(sweep.run(progress=False)[2]))
          trial 2: every bit agrees: 1 replicate × 2 evaluations of 2 metrics,
          1 array of final state, complete at step 10
        """
        if not isinstance(trial, Trial):
            raise InputError(
                "Sweep.replay.trial", trial, "must be a trial of a result", "Write sweep.replay(result[7])."
            )
        result = trial.result
        with undisturbed():
            spec, plan = as_recorded(self.spec, self._traced, result.manifest, exactly=True)
            notes = check_result(spec, plan, result)
            return replay(spec, TrainedModels(spec, plan, result).plan_of(trial.id), trial, notes)

    def _start(self, directory: str | Path | None, seconds: float, extending: bool = False) -> _Started:
        """Opens the record of a run, as it is in the directory or new, and warns of what it does unasked."""
        disturbing = switched_on()
        for hint in (*hints_of_switches(disturbing), *hints_of_script(loaded_file())):
            warnings.warn(hint, RuntimeWarning, stacklevel=3)
        with undisturbed():
            return self._opened(directory, seconds, extending, disturbing)

    def _opened(self, directory: str | Path | None, seconds: float, extending: bool, disturbing: list[str]) -> _Started:
        """Opens the record of a run, as it is in the directory or new.

        Args:
          directory, seconds, extending: as for ``run``.
          disturbing: the debugging switches that are on outside.
        """
        if directory is not None and not isinstance(directory, str | os.PathLike):
            raise InputError("run.directory", directory, "must be a path", 'Write sweep.run("runs/a").')
        # Absolute, since the process may change its folder while the run or its result is used.
        path = None if directory is None else Path(directory).absolute()
        found = None if path is None else on_writer(lambda: msgspec.to_builtins(recorded_manifest(path)))
        there = None if found is None else msgspec.convert(found, Manifest)
        if there is None:
            spec, plan = self.spec, checked(self.spec, self._arranged())
        else:
            spec, plan = as_recorded(self.spec, self._traced, there, extending)
        plan = advised(spec, plan, disturbing)
        own = manifest(spec, plan, recorded=path is not None)
        same = digest(json.dumps(msgspec.to_builtins(own.sweep)))
        check_same("the sweep", same, "Give every host the same script, data and versions.")
        if path is not None and there is not None and extending:
            on_writer(lambda: extend_run(path, spec, plan, own))
        sizes = RunSizes(plan.trials, plan.replicates, plan.rounds, spec.scheduler is not None, spec.stream is not None)
        record, recorded = open_record(path, own, sizes, seconds)
        events = each_undisturbed(train(spec, plan, record))
        return _Started(spec, plan, record, recorded, iter(()) if record.over else events)

    def models(self, result: Result) -> TrainedModels:
        """Returns the trained models of a result of this sweep, also of one that ``hpx.load`` returned.

        Raises:
          RunError: the result is of a different sweep.

        Example:
          >>> sweep = hpx.Sweep(program, space, trials=4)
          >>> [sorted(point) for point in sweep.models(sweep.run(progress=False)).points()]
          [['rate'], ['rate'], ['rate'], ['rate']]
        """
        with undisturbed():
            spec, plan = as_recorded(self.spec, self._traced, result.manifest, exactly=True)
            check_result(spec, plan, result)
        return TrainedModels(spec, plan, result)
