"""The question of a comparison of optimizers: which trains best, and fastest to a target, if all are tuned alike?"""

from collections.abc import Callable, Mapping
from dataclasses import KW_ONLY, dataclass, field
from functools import cached_property, wraps
from typing import Any

from hpjax.core.choice import Constant
from hpjax.core.errors import InputError, check_float
from hpjax.core.hparams import Hparams
from hpjax.core.objective import Objective, minimize
from hpjax.core.program import Program
from hpjax.core.space import Space
from hpjax.results.result import Result
from hpjax.results.store.manifest import StudyRecord
from hpjax.samplers import Sampler, Sobol
from hpjax.studies.chosen import check_search, choosing_of, common_steps
from hpjax.studies.optimizers_result import KIND, NAME, OptimizersResult
from hpjax.studies.search import SearchPerAlternative
from hpjax.studies.study import Study, check_kinds, names_read
from hpjax.sweep.sweep import Sweep


@dataclass(frozen=True)
class Optimizers(Study[OptimizersResult]):
    """The question of which optimizer trains best, and which is first at a target, if each is tuned as much.

    Each optimizer has a space and a search of its own, of equally many trials. Its best trial is that with the least
    median over the first half of the seeds; what it ends with, and how probably it beats the best one of another
    optimizer on a seed, are those of the other half (X. Bouthillier et al., "Accounting for Variance in Machine
    Learning Benchmarks", MLSys 2021). Steps to the target are those of tuning studies, as AlgoPerf scores them: of so
    many trials each the fastest counts (G. Dahl et al., 2023, arXiv 2306.07179).

    A space that is too narrow, or trials that are too few, make an optimizer look worse than it is (D. Choi et al., "On
    Empirical Comparisons of Optimizers for Deep Learning", 2019, arXiv 1910.05446): the answer tells of best values at
    an end of a range.

    Args:
      program: reads ``h.optimizer``, as ``optimizer=lambda h: h.optimizer(h)`` does.
      optimizers: name to a function of ``h`` that returns an Optax optimizer, and the space of what it reads.
      trials: trials of each optimizer.
      target: a value of the objective's metric; None asks for no steps to it.
      rounds: in how many parts the sampler is asked for trials, for samplers that learn; see ``Sweep``.
      replicates: seeds of each trial, 4 or more. Half of them choose, and the others judge.
      objective: its metric is compared at the end; ``hpx.minimize("valid/loss")`` by default. Without a quantile.
      sampler: proposes the points of each optimizer; ``hpx.Sobol()`` by default.
      seed: decides every random number of the study.
      width: lanes that one device computes at once; see ``Sweep``.
      devices: how many devices to use, all by default.

    Raises:
      InputError: an argument cannot be used.

    Example:
      >>> program = hpx.supervised(
      ...     model=nn.Dense(10), data=hpx.data.digits(), batch_size=64, steps=40, eval_every=10,
      ...     optimizer=lambda h: h.optimizer(h), loss=optax.softmax_cross_entropy_with_integer_labels)
      >>> study = Optimizers(program, {
      ...     "sgd": (lambda h: optax.sgd(h.rate, h.momentum),
      ...             hpx.Space(rate=hpx.LogUniform(1e-3, 10), momentum=hpx.Uniform(0, 0.99))),
      ...     "adam": (lambda h: optax.adam(h.rate), hpx.Space(rate=hpx.LogUniform(1e-4, 1))),
      ... }, trials=5, replicates=4, target=1.0)
      >>> study.plan().trials
      10
      >>> answer = study.run(progress=False)
      >>> sorted(point.optimizer for point in answer.points)
      ['adam', 'sgd']
    """

    program: Program
    optimizers: Mapping[str, tuple[Callable[[Hparams], Any], Space]]
    _: KW_ONLY
    trials: int = 25
    target: float | None = None
    rounds: int = 1
    replicates: int = 10
    objective: Objective = field(default_factory=lambda: minimize("valid/loss"))
    sampler: Sampler = field(default_factory=Sobol)
    seed: int = 0
    width: int | tuple[int, ...] | None = None
    devices: int | None = None

    def __post_init__(self) -> None:
        check_kinds(self, "program", "objective", "sampler")
        _check_optimizers(self.optimizers)
        check_search("Optimizers", self.trials, self.rounds, self.replicates, self.objective)
        if self.target is not None:
            target = check_float("Optimizers.target", self.target, float("-inf"), remedy="Write target=0.1.")
            object.__setattr__(self, "target", target)

    @cached_property
    def sweep(self) -> Sweep:
        """The sweep that finds the answer, for all else that a sweep can do, such as ``replay`` and the command line.

        A file for ``hpjax run`` has the line ``sweep = hpx.studies.Optimizers(...).sweep``. ``study.read(result)``
        reads the result.

        Raises:
          InputError, ProgramError, UnknownHyperparameterError: the program cannot run, or does not read the optimizer.
        """
        first, *others = (
            Space(**{NAME: Constant(_named(name, optimizer))}) & space
            for name, (optimizer, space) in self.optimizers.items()
        )
        for other in others:
            first = first | other
        sweep = Sweep(
            self.program,
            first,
            trials=self.trials * len(self.optimizers),
            rounds=self.rounds,
            replicates=self.replicates,
            sampler=SearchPerAlternative(self.sampler, choosing_of(self.replicates)),
            objective=self.objective,
            seed=self.seed,
            width=self.width,
            devices=self.devices,
            study=self.as_record(),
        )
        if NAME not in names_read(sweep):
            allowed = "is never read by the program, so that all would train the same"
            raise InputError("Optimizers.program", NAME, allowed, "Write optimizer=lambda h: h.optimizer(h).")
        common_steps("Optimizers.program", sweep)
        return sweep

    def read(self, result: Result, target: float | None = None) -> OptimizersResult:
        """Returns the answer that a result gives, of a sweep that this study made.

        Args:
          result: the result of ``study.sweep.run()`` or ``hpx.load(directory)``.
          target: another target than the study's own, which is the default; trials do not end at it.

        Raises:
          InputError: the result is of another kind.
        """
        return OptimizersResult.read(result, self.target if target is None else target)

    def as_record(self) -> StudyRecord:
        """Returns what the manifest says of the study."""
        return StudyRecord(KIND, self.target, NAME, None)


def _named(name: str, optimizer: Callable[[Hparams], Any]) -> Callable[[Hparams], Any]:
    """Returns a function of ``h`` with the name of the optimizer, by which results know it."""

    @wraps(optimizer)
    def named(h: Hparams) -> Any:
        return optimizer(h)

    named.__name__ = named.__qualname__ = name
    return named


def _check_optimizers(optimizers: Any) -> None:
    """Raises ``InputError`` unless there are two or more, each with a function and a space of its own."""
    field_name = "Optimizers.optimizers"
    remedy = 'Write {"adam": (lambda h: optax.adam(h.rate), hpx.Space(rate=hpx.LogUniform(1e-4, 1)))}.'
    if not isinstance(optimizers, Mapping) or len(optimizers) < 2:
        raise InputError(field_name, optimizers, "must be name to (optimizer, space), of two or more", remedy)
    for name, pair in optimizers.items():
        if not isinstance(name, str) or not name.isidentifier():
            raise InputError(field_name, name, "must be a name of letters, digits and _", remedy)
        own = f"{field_name}[{name!r}]"
        if not isinstance(pair, tuple) or len(pair) != 2 or not callable(pair[0]) or not isinstance(pair[1], Space):
            allowed = "must be a function of h, and an hpx.Space of what it reads"
            raise InputError(own, pair, allowed, remedy)
        if len(pair[1].branches) > 1:
            raise InputError(own, str(pair[1]), "must have one space, without |", "Make an optimizer of each.")
        if NAME in pair[1].names:
            raise InputError(own, NAME, "is the optimizer itself", "Give this hyperparameter another name.")
