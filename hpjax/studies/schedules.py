"""The question of a study of schedules: how much does the best shape of each family gain over a baseline?"""

from collections.abc import Iterable, Mapping
from dataclasses import KW_ONLY, dataclass, field
from functools import cached_property
from typing import Any

from hpjax.core.choice import Constant
from hpjax.core.errors import InputError, did_you_mean
from hpjax.core.objective import Objective, minimize
from hpjax.core.program import Program
from hpjax.core.space import Space
from hpjax.results.result import Result
from hpjax.results.store.manifest import StudyRecord
from hpjax.samplers import Sampler, Sobol
from hpjax.studies.chosen import check_search, choosing_of, common_steps
from hpjax.studies.schedule_families import ScheduleFamily
from hpjax.studies.schedules_result import KIND, SchedulesResult
from hpjax.studies.search import SearchPerAlternative
from hpjax.studies.study import Study, check_kinds, names_read
from hpjax.sweep.sweep import Sweep


@dataclass(frozen=True)
class Schedules(Study[SchedulesResult]):
    """The question of how much the best shape of each family of schedules gains over a baseline, at the same budget.

    Each family has a search of its own, of ``trials`` points over its shape and all other hyperparameters, the peak
    learning rate among them. Of each the best trial is that with the least median over the first half of the seeds. It
    is compared with the baseline's best, seed by seed, on the other half, which had no part in the choice. So a family
    that was searched luckily on some seeds gains nothing by that.

    The protocol follows H. Naganuma, A. Agarwala, P. Kasimbeg and G. Dahl, "What do near-optimal learning rate
    schedules look like?", 2026, arXiv 2603.10301: the median over seeds decides, and seeds that did not decide judge.

    All families train in one sweep, as one program: each lane computes the schedules of all, and keeps its own.

    Args:
      program: reads ``h.schedule``, as ``optimizer=lambda h: optax.sgd(lambda t: h.learning_rate * h.schedule(t, h))``
        does. All trials take equally many steps.
      space: the other hyperparameters, at least the peak learning rate.
      families: such as ``hpx.studies.schedule_families(steps)``, or a list of ``ScheduleFamily``.
      baseline: the name of the family that the others are compared with.
      trials: trials of each family.
      rounds: in how many parts the sampler is asked for them, for samplers that learn; see ``Sweep``.
      replicates: seeds of each trial, 4 or more. Half of them choose, and the others judge.
      objective: its metric is compared; ``hpx.minimize("valid/loss")`` by default. Without a quantile.
      name: the hyperparameter that is the schedule.
      sampler: proposes the points of each family; ``hpx.Sobol()`` by default.
      seed: decides every random number of the study.
      width: lanes that one device computes at once; see ``Sweep``.
      devices: how many devices to use, all by default.

    Raises:
      InputError: an argument cannot be used.

    Example:
      >>> program = hpx.supervised(
      ...     model=nn.Dense(10), data=hpx.data.digits(), batch_size=64, steps=50,
      ...     optimizer=lambda h: optax.sgd(lambda t: h.learning_rate * h.schedule(t, h)),
      ...     loss=optax.softmax_cross_entropy_with_integer_labels)
      >>> space = hpx.Space(learning_rate=hpx.LogUniform(1e-2, 10))
      >>> families = hpx.studies.schedule_families(50, "cosine", "rex")
      >>> study = Schedules(program, space, families, trials=4, replicates=6)
      >>> len(study.plan().groups), study.plan().trials
      (1, 8)
      >>> answer = study.run(progress=False)
      >>> [point.family for point in answer.points]
      ['cosine', 'rex']
    """

    program: Program
    space: Space
    families: Mapping[str, ScheduleFamily] | Iterable[ScheduleFamily]
    _: KW_ONLY
    baseline: str = "cosine"
    trials: int = 64
    rounds: int = 1
    replicates: int = 20
    objective: Objective = field(default_factory=lambda: minimize("valid/loss"))
    name: str = "schedule"
    sampler: Sampler = field(default_factory=Sobol)
    seed: int = 0
    width: int | tuple[int, ...] | None = None
    devices: int | None = None

    def __post_init__(self) -> None:
        check_kinds(self, "program", "space", "objective", "sampler")
        object.__setattr__(self, "families", _checked(self.families, self.baseline))
        check_search("Schedules", self.trials, self.rounds, self.replicates, self.objective)
        if self.sampler.size(self.space) is not None:
            allowed = "must propose any number of points, since each family gets equally many"
            raise InputError("Schedules.sampler", type(self.sampler).__name__, allowed, "Write sampler=hpx.Sobol().")
        shapes = dict.fromkeys(name for family in self._families for name in family.domains)
        for name in (self.name, *shapes):
            if name in self.space.names:
                allowed = "is the schedule itself" if name == self.name else "is a hyperparameter of a family"
                remedy = f"Give {name} another name in the space and in the program, or leave it out."
                raise InputError("Schedules.space", name, allowed, remedy)

    @cached_property
    def sweep(self) -> Sweep:
        """The sweep that finds the answer, for all else that a sweep can do, such as ``replay`` and the command line.

        A file for ``hpjax run`` has the line ``sweep = hpx.studies.Schedules(...).sweep``. ``study.read(result)`` reads
        the result.

        Raises:
          InputError, ProgramError, UnknownHyperparameterError: the program cannot run, or does not read the schedule.
        """
        sweep = Sweep(
            self.program,
            self.space & _alternatives(self.name, self._families),
            trials=self.trials * len(self._families),
            rounds=self.rounds,
            replicates=self.replicates,
            sampler=SearchPerAlternative(self.sampler, choosing_of(self.replicates)),
            objective=self.objective,
            seed=self.seed,
            width=self.width,
            devices=self.devices,
            study=self.as_record(),
        )
        if self.name not in names_read(sweep):
            allowed = "is never read by the program, so that all families would train the same"
            remedy = f"Write optimizer=lambda h: optax.sgd(lambda t: h.learning_rate * h.{self.name}(t, h))."
            raise InputError("Schedules.program", self.name, allowed, remedy)
        steps = common_steps("Schedules.program", sweep)
        for family in self._families:
            if family.steps not in (None, steps):
                allowed = f"is for trials of {family.steps} steps, and they take {steps}"
                remedy = f"Write hpx.studies.schedule_families({steps})."
                raise InputError("Schedules.families", family.name, allowed, remedy)
        return sweep

    def read(self, result: Result) -> SchedulesResult:
        """Returns the answer that a result gives, of a sweep that this study made.

        Args:
          result: the result of ``study.sweep.run()`` or ``hpx.load(directory)``.

        Raises:
          InputError: the result is of another kind.
        """
        return SchedulesResult.read(result, self.baseline, name=self.name)

    def as_record(self) -> StudyRecord:
        """Returns what the manifest says of the study."""
        return StudyRecord(KIND, None, self.name, None, self.baseline)

    @property
    def _families(self) -> tuple[ScheduleFamily, ...]:
        return tuple(self.families.values() if isinstance(self.families, Mapping) else self.families)


def _checked(families: Any, baseline: str) -> tuple[ScheduleFamily, ...]:
    """Returns the families; raises unless there are two or more of distinct names, the baseline among them."""
    field, remedy = "Schedules.families", "Write families=hpx.studies.schedule_families(steps)."
    listed = families.values() if isinstance(families, Mapping) else families
    if not isinstance(listed, Iterable) or isinstance(listed, str):
        raise InputError(field, families, "must be a dict or a list of families", remedy)
    found = tuple(listed)
    for family in found:
        if not isinstance(family, ScheduleFamily):
            raise InputError(field, family, "must be of type ScheduleFamily", remedy)
    names = [family.name for family in found]
    if isinstance(families, Mapping) and list(families) != names:
        wrong = next(str(key) for key, name in zip(families, names, strict=True) if key != name)
        allowed = f"must be the name of the family's function; there are {', '.join(names)}"
        raise InputError(field, wrong, allowed, "Give a list of families, or rename the function.")
    for name in names:
        if names.count(name) > 1:
            raise InputError(field, name, "is the name of two families", "Name their functions differently.")
    if baseline not in names:
        raise InputError("Schedules.baseline", baseline, "must be one of the families", did_you_mean(baseline, names))
    if len(found) < 2:
        raise InputError(field, names, "must be two or more, to compare them", remedy)
    return found


def _alternatives(name: str, families: tuple[ScheduleFamily, ...]) -> Space:
    """Returns the union of the families' spaces, in which the hyperparameters of the other families are constants.

    So all trials have the same names, and share one program.
    """
    constants: dict[str, Any] = {}
    for family in families:
        constants |= {each: domain.baseline for each, domain in family.domains.items() if each not in constants}
    first, *others = (
        Space(**{name: Constant(family.shape, select=True)}, **(constants | dict(family.domains)))
        for family in families
    )
    for other in others:
        first = first | other
    return first
