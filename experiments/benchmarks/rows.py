"""The table: who is compared with whom, by what measure, and what is to be reached."""

import operator
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Measure:
    """What is made of two seconds, ours and the rival's.

    Attributes:
      of: ours and the rival's to the value.
      reached: whether a value reaches a target.
      shown: a value as text.
      bound: how the target bounds the value, as text.
    """

    of: Callable[[float, float], float]
    reached: Callable[[float, float], bool]
    shown: str
    bound: str


def _speed(ours: float, rival: float) -> float:
    return rival / ours


def _time(ours: float, rival: float) -> float:
    return ours / rival


SPEEDUP = Measure(_speed, operator.ge, "{:.2f}×", "≥")
SHARE = Measure(_speed, operator.ge, "{:.0%}", "≥")
TIMES = Measure(_time, operator.le, "{:.2f}×", "≤")
WITHIN = Measure(_time, lambda value, target: 1 / target <= value <= target, "{:.2f}×", "within")
OVERHEAD = Measure(lambda ours, rival: ours / rival - 1, operator.le, "{:+.1%}", "≤")
ADDED = Measure(lambda ours, rival: ours - rival, operator.le, "{:+.2f} s", "≤")
SECONDS = Measure(lambda ours, rival: ours, operator.le, "{:.2f} s", "≤")


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
      fresh: whether each run has a process of its own.
      clocks: ``"wall"``, ``"cpu"`` or both.
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
    fresh: bool = False
    clocks: tuple[str, ...] = ("wall",)


VMAP = Competitor("jit(vmap(scan))", "rivals:vmapped")


def one_by_one(trials: int) -> tuple[Competitor, Competitor]:
    return (
        Competitor("jitted scan, one by one", "rivals:scanned", {"trials": trials}),
        Competitor("jitted step in a loop, one by one", "rivals:stepped", {"trials": trials}),
    )


def against(target: float, *rivals: Competitor) -> tuple[tuple[Competitor, float], ...]:
    return tuple((rival, target) for rival in rivals)


def importing(title: str, what: str) -> Row:
    """Returns the row that says what an import adds to that of jax and flax."""
    bare, ours = (
        Competitor(f"import {modules}", "processes:importing", {"what": modules})
        for modules in ("jax, flax", f"jax, flax, {what}")
    )
    return Row(title, "mlp:sweep", 1, against(0.3, bare), ours=ours, measure=ADDED, per_trial=False)


def overhead(workload: str, length: str) -> Row:
    """Returns the row that says what a run of 256 MLPs, of some length, takes beside its device calls."""
    return Row(
        f"Sweep.run of {length}: store, progress and checkpoints",
        workload,
        256,
        against(0.03, Competitor("bare segments", "overhead:bare")),
        ours=Competitor("hpjax", "overhead:whole"),
        measure=OVERHEAD,
        tolerance=0.001,
        per_trial=False,
        fresh=True,
        clocks=("wall", "cpu"),
    )


def first_run(
    title: str, workload: str, role: str, measure: Measure, target: float, clocks: tuple[str, ...] = ("wall",)
) -> Row:
    """Returns the row that compares a first run of a workload with one whose width is given."""
    return Row(
        title,
        workload,
        256,
        against(target, Competitor("width given", role, {"width": 8})),
        ours=Competitor("hpjax", role),
        measure=measure,
        rounds=3,
        per_trial=False,
        fresh=True,
        clocks=clocks,
    )


def compiling(title: str, workload: str, trials: int) -> Row:
    """Returns the row of the seconds before the first optimizer step, and of all CPU seconds of compiling."""
    return Row(
        f"compile {title}",
        workload,
        trials,
        against(1.1, Competitor("jit(vmap(scan))", "compiling:plain")),
        ours=Competitor("hpjax", "compiling:ours"),
        measure=TIMES,
        rounds=3,
        per_trial=False,
        fresh=True,
        clocks=("wall", "cpu"),
    )


def lowering(title: str, workload: str, trials: int, target: float) -> Row:
    """Returns the row of the seconds before XLA compiles; the targets are half of what they were at 0d66f50."""
    return Row(
        f"trace and lower {title}",
        workload,
        trials,
        against(target, Competitor("jit(vmap(scan))", "compiling:plain_lowered")),
        ours=Competitor("hpjax", "compiling:ours_lowered"),
        measure=SECONDS,
        rounds=3,
        per_trial=False,
        fresh=True,
    )


INSIDE = Competitor("hpjax", "groups:inside")
COMPILED = (
    ("mlp", "MLP", "mlp:sweep", 256),
    ("transformer", "transformer", "transformer:sweep", 64),
    ("lstm", "LSTM", "lstm:sweep", 64),
    ("cnn", "CNN", "cnn:sweep", 64),
    ("gan", "a GAN of a user's own", "ports:gan", 8),
    ("ppo", "PPO of a user's own", "ports:ppo", 16),
)
LOWERED = (
    ("mlp", "MLP", "mlp:sweep", 256, 0.6),
    ("transformer", "transformer", "transformer:sweep", 64, 1.05),
)
PORTS = {
    "mnist": "Flax's MNIST",
    "vae": "Flax's VAE",
    "nanodo": "nanodo",
    "gan": "a DCGAN",
    "ppo": "purejaxrl's PPO",
    "pinn": "jaxpi's Burgers",
    "equinox_rnn": "Equinox's RNN",
    "grokking": "grokking",
}
# By how much a plan's seconds may be off.
ESTIMATE = 2.0

ROWS = {
    "mlp": Row(
        "MLP, 256 trials",
        "mlp:sweep",
        256,
        (
            (VMAP, 2.5),
            (Competitor("hyperoptax RandomSearch", "rivals:hyperoptax", peer=True), 2.6),
            (Competitor("torch.func vmap", "torch_rivals:vmapped", {"trials": 64}, peer=True), 2.5),
            (Competitor("torch, one by one", "torch_rivals:alone", {"trials": 8}, peer=True), 15.0),
            (Competitor("tuned by hand", "rivals:by_hand"), 1.0),
        ),
        tolerance=0.5,
    ),
    "mlp-1024": Row("MLP, 1,024 trials", "mlp:sweep", 1024, against(2.8, VMAP), tolerance=0.5),
    "matmul": Row(
        "MLP, 256 trials: share of the matrix-product rate",
        "mlp:sweep",
        256,
        against(0.7, Competitor("products of 256×256 on all cores", "rivals:matrix_products")),
        measure=SHARE,
    ),
    "tiny": Row("MLP of 16 units, 1,024 trials", "mlp:tiny", 1024, against(3.0, one_by_one(64)[0]), tolerance=1.2),
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
        fresh=True,  # so that a run finds none of the programs that the one before it kept
    ),
    "groups-inside": Row("MLPs of 10 widths, 8 trials each", "groups:sweep", 8, (), ours=INSIDE, rounds=1),
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
    "overhead": overhead("mlp:long", "6,000 steps"),
    "overhead-long": overhead("mlp:longer", "18,000 steps"),
    **{f"compile-{name}": compiling(title, workload, trials) for name, title, workload, trials in COMPILED},
    **{f"lower-{name}": lowering(*what) for name, *what in LOWERED},
    "width": first_run("the first run of 6,000 steps waits: width measured", "mlp:long", "compiling:ours", ADDED, 5.0),
    "tuned": first_run(
        "a first run of 18,000 steps: widths measured while it trains",
        "mlp:longer",
        "overhead:first",
        OVERHEAD,
        0.05,
        ("wall", "cpu"),
    ),
    "later": Row(
        "a first run of 6 depths: later groups are traced while others train",
        "depths:sweep",
        32,
        against(0.05, Competitor("traced before it begins", "depths:first", {"before": True})),
        ours=Competitor("hpjax", "depths:first"),
        measure=OVERHEAD,
        tolerance=1e-6,
        per_trial=False,
        fresh=True,
        clocks=("wall", "cpu"),
    ),
    "loaded": Row(
        "MLP, 256 trials, while other work takes each core",
        "mlp:sweep",
        256,
        (),
        ours=Competitor("hpjax", "ours:loaded"),
        rounds=1,
    ),
    **{
        f"port-{name}": Row(f"port of {title}", f"ports:{name}", 1, (), Competitor("hpjax", "ports:sweep"), rounds=1)
        for name, title in PORTS.items()
    },
    "import": importing("import hpjax", "hpjax"),
    "import-used": importing(
        "import hpjax, and Sweep, supervised and Space of it", "hpjax; hpjax.Sweep, hpjax.supervised, hpjax.Space"
    ),
}
