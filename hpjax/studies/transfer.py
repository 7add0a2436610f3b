"""The question of a transfer study: does the best learning rate stay where it is as a model gets wider, or deeper?"""

from collections.abc import Sequence
from dataclasses import KW_ONLY, dataclass, field
from functools import cached_property
from typing import Any

from hpjax.core.choice import Choice
from hpjax.core.errors import InputError, check_int
from hpjax.core.objective import Objective, minimize
from hpjax.core.program import Program
from hpjax.core.space import Space
from hpjax.results.result import Result
from hpjax.results.store.manifest import StudyRecord
from hpjax.samplers import Grid
from hpjax.studies.study import Study, check_kinds, names_read
from hpjax.studies.transfer_result import DEPTH, KIND, MUP, RATE, WIDTH, TransferResult
from hpjax.sweep.sweep import Sweep


@dataclass(frozen=True)
class Transfer(Study[TransferResult]):
    """The question of how far the best learning rate moves as a model gets wider, or deeper.

    Loss against learning rate at each width, every rate with the same seeds: G. Yang et al., "Tensor Programs V", 2022,
    arXiv 2203.03466, figure 1. The best rate of a width is the vertex of a parabola through the least mean over seeds
    and its neighbours, on the logarithm of the rate. Its drift is in octaves, factors of two, a doubling of the width;
    intervals are those of a bootstrap over seeds.

    All rates and seeds of a width are one program, with and without μP.

    Args:
      program: reads ``h.learning_rate``, ``h.width``, and ``h.depth`` where depths are given. If it reads ``h.mup``, as
        ``mup=lambda h: hpx.mup.MuP({"width": 32}, enabled=h.mup)`` does, it trains with and without μP.
      space: ``learning_rate``, a range with ``num`` values or a choice of three or more, and constants.
      widths: whole numbers, one at least; two at least where there are no depths.
      depths: likewise, none by default.
      replicates: seeds of each trial, 3 or more.
      objective: its metric is compared at the end; ``hpx.minimize("valid/loss")`` by default.
      seed: decides every random number of the study.
      width: lanes that one device computes at once; see ``Sweep``.
      devices: how many devices to use, all by default.

    Raises:
      InputError: an argument cannot be used.

    Example:
      >>> program = hpx.supervised(
      ...     model=lambda h: nn.Sequential([nn.Dense(h.width), nn.relu, nn.Dense(10)]),
      ...     optimizer=lambda h: optax.adam(h.learning_rate),
      ...     mup=lambda h: hpx.mup.MuP({"width": 32}, enabled=h.mup),
      ...     loss=optax.softmax_cross_entropy_with_integer_labels, data=hpx.data.digits(), batch_size=64, steps=20)
      >>> space = hpx.Space(learning_rate=hpx.LogUniform(1e-3, 1, num=6))
      >>> study = Transfer(program, space, widths=[32, 64])
      >>> len(study.plan().groups), study.plan().trials
      (2, 24)
      >>> answer = study.run(progress=False)
      >>> [(drift.parametrization, drift.over) for drift in answer.drifts]
      [('μP', 'width'), ('standard', 'width')]
    """

    program: Program
    space: Space
    widths: Sequence[int]
    depths: Sequence[int] = ()
    _: KW_ONLY
    replicates: int = 3
    objective: Objective = field(default_factory=lambda: minimize("valid/loss"))
    seed: int = 0
    width: int | tuple[int, ...] | None = None
    devices: int | None = None

    def __post_init__(self) -> None:
        check_kinds(self, "program", "space", "objective")
        for name in ("widths", "depths"):
            object.__setattr__(self, name, _sizes(name, getattr(self, name)))
        if not self.widths or len(self.widths) + len(self.depths) < 2:
            allowed = "must be two or more, or one with several depths"
            raise InputError("Transfer.widths", list(self.widths), allowed, "Write widths=[32, 64, 128].")
        check_int("Transfer.replicates", self.replicates, least=3)
        for name in (WIDTH, DEPTH, MUP):
            if name in self.space.names:
                remedy = f"Leave {name} out of the space" + ("." if name == MUP else f", and write {name}s=[…].")
                raise InputError("Transfer.space", name, "is what the study varies", remedy)
        if RATE not in self.space.names:
            remedy = "Write hpx.Space(learning_rate=hpx.LogUniform(1e-4, 1e-1, num=13))."
            raise InputError("Transfer.space", ", ".join(self.space.names), f"must have {RATE}", remedy)
        points = Grid().size(self.space)
        if points is None or points < 3 or len(self.space.branches) > 1:
            allowed = f"must have three or more values of {RATE} and constants"
            raise InputError("Transfer.space", str(self.space), allowed, "Write hpx.LogUniform(1e-4, 1e-1, num=13).")

    @cached_property
    def sweep(self) -> Sweep:
        """The sweep that finds the answer, for all else that a sweep can do, such as ``replay`` and the command line.

        A file for ``hpjax run`` has the line ``sweep = hpx.studies.Transfer(...).sweep``. ``study.read(result)`` reads
        the result.

        Raises:
          InputError, ProgramError, UnknownHyperparameterError: the program cannot run, or a size changes nothing in it.
        """
        sizes: dict[str, Any] = {WIDTH: Choice(*self.widths)}
        if self.depths:
            sizes[DEPTH] = Choice(*self.depths)
        sweep = self._sweep(sizes | {MUP: Choice(True, False)})
        if MUP not in names_read(sweep):
            sweep = self._sweep(sizes)
        for name in sizes:
            _check_changes(sweep, name)
        return sweep

    def _sweep(self, sizes: dict[str, Any]) -> Sweep:
        return Sweep(
            self.program,
            self.space & Space(**sizes),
            replicates=self.replicates,
            sampler=Grid(),
            objective=self.objective,
            seed=self.seed,
            width=self.width,
            devices=self.devices,
            study=self.as_record(),
        )

    def read(self, result: Result) -> TransferResult:
        """Returns the answer that a result gives, of a sweep that this study made.

        Args:
          result: the result of ``study.sweep.run()`` or ``hpx.load(directory)``.

        Raises:
          InputError: the result is of another kind.
        """
        return TransferResult.read(result)

    def as_record(self) -> StudyRecord:
        """Returns what the manifest says of the study."""
        return StudyRecord(KIND, None, WIDTH if len(self.widths) > 1 else DEPTH, None)


def _sizes(name: str, sizes: Any) -> tuple[int, ...]:
    """Returns widths or depths, ascending and each once."""
    if isinstance(sizes, str) or not isinstance(sizes, Sequence):
        raise InputError(f"Transfer.{name}", sizes, "must be a list of whole numbers", f"Write {name}=[32, 64, 128].")
    return tuple(sorted({check_int(f"Transfer.{name}", size) for size in sizes}))


def _check_changes(sweep: Sweep, name: str) -> None:
    """Raises unless a size decides on the shapes of arrays, so that each of its values has a program of its own."""
    if name in names_read(sweep) and not next(v for v in sweep.plan().verdicts if v.name == name).traced:
        return
    allowed = f"must change the shape of an array, and h.{name} changes none"
    remedy = f"Write model=lambda h: MLP(h.{name}) in hpx.supervised(...)."
    raise InputError("Transfer.program", name, allowed, remedy)
