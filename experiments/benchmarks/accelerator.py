"""On a GPU or TPU, in eight minutes: two laws, and how fast lanes are beside jit(vmap(scan)) and beside a roofline.

make bench-accelerator
python experiments/benchmarks/accelerator.py [--work MLP] [--lanes 1 4] [--steps 2] [--no-laws] [--out FOLDER]

The second runs anywhere, small.
"""

import argparse
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import cnn
import mlp
import records
import rivals
import table
import transformer
from ours import engine_of, sweep_of
from workload import Workload

ROOT = Path(__file__).parents[2]
WORK = {"MLP": mlp.sweep, "CNN": cnn.sweep, "transformer": transformer.sweep}
DTYPES = ("float32", "bfloat16")
LANES = {"MLP": (1, 256, 4096), "CNN": (1, 64, 512), "transformer": (1, 64, 512)}
# 4,096 lanes of the MLP must take at most so many times as long as one.
MANY, TARGET = 4096, 6.0
# No row begins that would not end after so many seconds, if it takes as long as the longest before.
MOST = 450
LAWS = ("tests/laws/test_law1_as_if_alone.py", "tests/laws/test_law2_packing.py")
HEADER = (
    "work",
    "computed in",
    "lanes",
    "ms a step",
    "of the roofline",
    "waits for",
    "ms a step, Sweep.run",
    "ms a step, jit(vmap(scan))",
    "hpjax is",
    "time ÷ that of one lane",
)


class Device(NamedTuple):
    """What was measured of the device.

    Attributes:
      bandwidth: bytes a second, read and written.
      float32, bfloat16: FLOP a second in products of such matrices, at JAX's default precision.
    """

    bandwidth: float
    float32: float
    bfloat16: float


def seconds(run: Callable[[], object], rounds: int) -> float:
    """Returns the median seconds of some runs after a first one, which compiles."""
    laps = []
    for _ in range(rounds + 1):
        begun = time.perf_counter()
        run()
        laps.append(time.perf_counter() - begun)
    return statistics.median(laps[1:])


def measured(size: int, rounds: int) -> Device:
    """Measures the device by products of random matrices, and by additions to an array of as many numbers."""
    import jax
    import jax.numpy as jnp

    times = 20

    def repeated(body, x):
        many = jax.jit(lambda x: jax.lax.fori_loop(0, times, lambda _, x: body(x), x))
        return seconds(lambda: jax.block_until_ready(many(x)), rounds)

    x = jax.random.normal(jax.random.key(0), (size, size)) / size**0.5
    rates = [times * 2 * size**3 / repeated(lambda a, y=y: a @ y, y) for y in (x, x.astype(jnp.bfloat16))]
    return Device(times * 2 * 4 * size**2 / repeated(lambda a: a + 1, x), *rates)


def steps_alone(sweep, steps: int, rounds: int) -> tuple[float, tuple[float, float]]:
    """Times the segments of a sweep without all that is around them.

    Returns:
      The seconds of its steps; and the FLOP and the bytes of one step of all lanes, as compiled.
    """
    from hpjax.engine.hlo import CompiledText

    plan, programs, members, compiled = engine_of(sweep)
    chunks = plan.arrangements[0].chunks

    def run():
        lanes = programs.lanes(plan, 0, compiled, members)
        lanes.dispatch(1, evaluate=False)  # and their first states
        lanes.collect()
        begun = time.perf_counter()
        lanes.dispatch(steps, evaluate=False)
        lanes.collect()
        return (time.perf_counter() - begun) * steps / (steps - 1)

    laps = [run() for _ in range(rounds + 1)][1:]
    step = CompiledText(compiled.advance.compiled.as_text()).step
    flops = plan.shapes[0].step.flops * len(members.trial)
    return statistics.median(laps), (flops, chunks * step.bytes)


def row(name: str, dtype: str, workload: Workload, lanes: int, device: Device, rounds: int, one: float | None):
    """Measures one row; returns its cells, and the seconds of the steps."""
    import jax

    arrays = workload.arrays(lanes)
    trained = {} if dtype == "float32" else {"compute_dtype": dtype}
    # All at once, but on a TPU, which takes as many at once as its memory on the chip holds.
    width = {} if jax.default_backend() == "tpu" else {"width": lanes}
    sweep = sweep_of(workload, arrays, trained=trained, **width)
    alone, (flops, moved) = steps_alone(sweep, workload.steps, rounds)
    whole = seconds(lambda: sweep.run(progress=False), rounds)
    plain = seconds(rivals.vmapped(workload, arrays).run, rounds) if dtype == "float32" else None
    times = {"arithmetic": flops / getattr(device, dtype), "memory": moved / device.bandwidth}
    best = max(times, key=times.__getitem__)

    def each(value: float | None) -> str:
        return "—" if value is None else f"{1e3 * value / workload.steps:.3f}"

    return (
        name,
        dtype,
        f"{lanes:,}",
        each(alone),
        f"{times[best] * workload.steps / alone:.0%}",
        best,
        each(whole),
        each(plain),
        "—" if plain is None else f"{plain / alone:.2f}×",
        f"{alone / (one or alone):.2f}",
    ), alone


def laws() -> str:
    """Runs the tests of two laws on this device, for two minutes each at most; returns what came of each file."""
    found = []
    for file in LAWS:
        command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-m", "not slow", file]
        try:
            ran = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120)
        except subprocess.TimeoutExpired:
            found.append(f"`{file}`: did not end in two minutes")
            continue
        last = (ran.stdout.strip().splitlines() or ["nothing was printed"])[-1]
        found.append(f"`{file}`: {'passed' if ran.returncode == 0 else f'failed: {last}'}")
    return "\n".join(f"- {each}" for each in found)


def main(
    out: Path,
    work: Sequence[str] = tuple(WORK),
    lanes: Sequence[int] | None = None,
    steps: int | None = None,
    rounds: int = 3,
    product: int = 8192,
    with_laws: bool = True,
) -> None:
    """Prints the tables and writes them to ``gpu.md`` or ``tpu.md``; of a CPU to ``small.md``."""
    import jax

    if jax.default_backend() == "cpu" and not (lanes and steps):
        sys.exit(
            "JAX finds no accelerator here. Install its part of JAX in this environment, pip install 'jax[cuda13]' or "
            "'jax[tpu]', or give --lanes and --steps for a small run on the CPU."
        )
    end = time.monotonic() + MOST
    checked = laws() if with_laws else ""
    kind, device, rows = jax.devices()[0].device_kind, measured(product, rounds), []
    rates = (
        f"{device.float32 / 1e12:.3g} TFLOP/s in products of {product} in float32, "
        f"{device.bfloat16 / 1e12:.3g} in bfloat16, {device.bandwidth / 1e9:,.0f} GB/s"
    )
    print(f"{kind}: {rates}\n{checked}\n{table.line(HEADER)}", flush=True)
    ratio, longest = None, 0.0
    for name in work:
        workload = replace(WORK[name], steps=steps or WORK[name].steps)
        for dtype in DTYPES:
            one = None
            for count in lanes or LANES[name]:
                begun = time.monotonic()
                if begun + longest > end:
                    rows.append((name, dtype, f"{count:,}", "no time was left", *[""] * (len(HEADER) - 4)))
                    continue
                cells, alone = row(name, dtype, workload, count, device, rounds, one)
                longest = max(longest, time.monotonic() - begun)
                one = one or alone
                ratio = alone / one if (name, dtype, count) == ("MLP", "float32", MANY) else ratio
                rows.append(cells)
                print(table.line(cells), flush=True)
    here = records.today(peers="")
    about = f"{here.date}, commit {records.commit()}: {kind}; {here.versions}; medians of {rounds} rounds."
    said = f"{MANY:,} lanes of the MLP take {ratio or 0:.2f} times as long as one; at most {TARGET:.0f} is the target."
    reached = said if ratio is not None else ""
    text = [about, f"{rates}, as measured.", checked, table.markdown(rows, HEADER), reached]
    out.mkdir(parents=True, exist_ok=True)
    name = jax.default_backend()
    (out / f"{'small' if name == 'cpu' else name}.md").write_text("\n\n".join(filter(None, text)) + "\n", "utf-8")
    print(reached)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", nargs="+", choices=WORK, default=tuple(WORK))
    parser.add_argument("--lanes", type=int, nargs="+", help="in place of each model's own")
    parser.add_argument("--steps", type=int, help="in place of each model's own")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument(
        "--product", type=int, default=8192, help="size of the matrices by which the device is measured"
    )
    parser.add_argument("--no-laws", action="store_true", help="leave out the tests of two laws")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results")
    given = parser.parse_args()
    main(given.out, given.work, given.lanes, given.steps, given.rounds, given.product, not given.no_laws)
