"""The table: who is compared with whom, by what measure, and what is to be reached."""

import operator
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Measure:
    """What is made of two seconds, ours and the rival's, and which way is better."""

    of: Callable[[float, float], float]
    reached: Callable[[float, float], bool]
    shown: str


SPEEDUP = Measure(lambda ours, rival: rival / ours, operator.ge, "{:.2f}×")
SHARE = Measure(lambda ours, rival: rival / ours, operator.ge, "{:.0%}")
OVERHEAD = Measure(lambda ours, rival: ours / rival - 1, operator.le, "{:+.1%}")
ADDED = Measure(lambda ours, rival: ours - rival, operator.le, "{:+.2f} s")


@dataclass(frozen=True)
class Competitor:
    """A role of a worker.

    Attributes:
      name: what the table calls it.
      role: ``module:function``.
      options: what the function gets besides the workload and the arrays.
      peer: whether it lives in the peers' environment.
      trials: how many trials it has, where that differs from the row's.
    """

    name: str
    role: str
    options: Mapping[str, Any] = field(default_factory=dict)
    peer: bool = False
    trials: int | None = None


@dataclass(frozen=True)
class Row:
    """One workload, hpjax, and its rivals, each with the target to be reached against it.

    Attributes:
      title: what the table says of it.
      workload: ``module:name``.
      trials: how many.
      rivals: each with its target.
      ours: hpjax.
      measure: what is compared.
      tolerance: how far the rivals' median loss may be from ours in the same trials: about three
        standard deviations of the difference that seeds make; a model that does not train is far beyond.
      rounds: at most, where a round is long.
      per_trial: whether the table gives milliseconds a trial; else seconds in all.
    """

    title: str
    workload: str
    trials: int
    rivals: tuple[tuple[Competitor, float], ...]
    ours: Competitor = field(default_factory=lambda: Competitor("hpjax", "ours:sweep"))
    measure: Measure = SPEEDUP
    tolerance: float | None = None
    rounds: int | None = None
    per_trial: bool = True


VMAP = Competitor("jit(vmap(scan))", "rivals:vmapped")


def one_by_one(trials: int) -> tuple[Competitor, Competitor]:
    return (
        Competitor("jitted scan, one by one", "rivals:scanned", {"trials": trials}),
        Competitor("jitted step in a loop, one by one", "rivals:stepped", {"trials": trials}),
    )


def against(target: float, *rivals: Competitor) -> tuple[tuple[Competitor, float], ...]:
    return tuple((rival, target) for rival in rivals)


def importing(title: str, what: str) -> Row:
    """What an import adds to that of jax and flax."""
    bare, ours = (
        Competitor(f"import {modules}", "processes:importing", {"what": modules})
        for modules in ("jax, flax", f"jax, flax, {what}")
    )
    return Row(title, "mlp:sweep", 1, against(0.3, bare), ours=ours, measure=ADDED, per_trial=False)


ROWS = {
    "mlp": Row(
        "MLP sweep, 256 trials",
        "mlp:sweep",
        256,
        (
            (VMAP, 2.3),
            (Competitor("hyperoptax RandomSearch", "rivals:hyperoptax", peer=True), 2.5),
            (Competitor("torch.func vmap", "torch_rivals:vmapped", {"trials": 64}, peer=True), 3.5),
            (Competitor("torch, one by one", "torch_rivals:alone", {"trials": 8}, peer=True), 15.0),
            (Competitor("tuned by hand", "rivals:by_hand"), 0.95),
        ),
        tolerance=0.5,
    ),
    "mlp-1024": Row("MLP sweep, 1,024 trials", "mlp:sweep", 1024, against(2.8, VMAP), tolerance=0.5),
    "matmul": Row(
        "MLP sweep, 256 trials: share of the matrix-product rate",
        "mlp:sweep",
        256,
        against(0.7, Competitor("products of 256×256 on all cores", "rivals:matrix_products")),
        measure=SHARE,
    ),
    "tiny": Row("MLP of 16 units, 1,024 trials", "mlp:tiny", 1024, against(3.0, one_by_one(64)[0]), tolerance=0.5),
    "cnn": Row(
        "CNN, 64 trials",
        "cnn:sweep",
        64,
        (
            # Two steps: XLA makes no loop of one, and outside of loops convolutions have kernels of their own.
            (Competitor("jit(vmap(scan))", "rivals:vmapped", {"steps": 2}), 12.0),
            *against(1.5, *one_by_one(8)),
        ),
        tolerance=0.75,
    ),
    "transformer": Row(
        "transformer, 64 trials",
        "transformer:sweep",
        64,
        against(1.3, VMAP, *one_by_one(16)),
        tolerance=0.4,
    ),
    "lstm": Row("LSTM, 64 trials", "lstm:sweep", 64, against(1.3, VMAP, *one_by_one(16)), tolerance=0.2),
    "groups": Row(
        "MLPs of 10 widths, 8 trials each: whole processes, compiling too",
        "groups:sweep",
        8,
        against(3.0, Competitor("ten scripts, jit(vmap(scan))", "groups:scripts")),
        ours=Competitor("hpjax", "groups:ours"),
        tolerance=0.5,
        rounds=3,
    ),
    "many": Row(
        "MLP of 16 units, 100,000 trials: speed a trial, of that of 1,000",
        "mlp:many",
        100_000,
        against(0.9, Competitor("1,000 trials", "ours:recorded", trials=1000)),
        ours=Competitor("100,000 trials", "ours:recorded"),
        measure=SHARE,
        tolerance=0.15,
        rounds=2,
    ),
    "overhead": Row(
        "Sweep.run: store, progress and checkpoints",
        "mlp:long",
        256,
        against(0.03, Competitor("bare segments", "overhead:bare")),
        ours=Competitor("Sweep.run", "overhead:whole"),
        measure=OVERHEAD,
        tolerance=0.001,
        rounds=3,
    ),
    "import": importing("import hpjax", "hpjax"),
    "import-used": importing(
        "import hpjax, and Sweep, supervised and Space of it", "hpjax; hpjax.Sweep, hpjax.supervised, hpjax.Space"
    ),
}
