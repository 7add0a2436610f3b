"""On a GPU or TPU: lanes against throughput, the rewrite of convolutions, and the width that is chosen.

python experiments/benchmarks/accelerator.py [--lanes 1 4] [--steps 2] [--out FOLDER]

runs it anywhere, small.
"""

import argparse
import statistics
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
from ours import sweep_of
from workload import Workload

WORKLOADS = {"MLP": mlp.sweep, "CNN": cnn.sweep, "transformer": transformer.sweep}
LANES = (1, 4, 16, 64, 256, 1024, 4096, 16384)
# 4,096 lanes of the MLP must take at most so many times as long as one.
LANES_OF_TARGET, TARGET = 4096, 6.0


class Timed(NamedTuple):
    """The median seconds of some runs, or what went wrong."""

    seconds: float | None
    error: str = ""

    def shown(self, of: Callable[[float], str]) -> str:
        return of(self.seconds) if self.seconds is not None else self.error


def timed(prepare: Callable[[], Callable[[], object]], rounds: int) -> Timed:
    """Compiles in a first run, and times those that follow."""
    from hpjax import RunError

    try:
        run, laps = prepare(), []
        run()
        for _ in range(rounds):
            begun = time.perf_counter()
            run()
            laps.append(time.perf_counter() - begun)
    except (RunError, RuntimeError) as error:  # out of memory, which larger numbers of lanes are expected to be
        return Timed(None, str(error).splitlines()[0][:80])
    return Timed(statistics.median(laps))


def swept(workload: Workload, lanes: int, width: int | None = None) -> Callable[[], object]:
    """Returns what runs a sweep of ``lanes`` trials with hpjax, ``width`` of them at once."""
    sweep = sweep_of(workload, workload.arrays(lanes), **({} if width is None else {"width": width}))
    return lambda: sweep.run(progress=False)


def rate(rounds: int, size: int) -> float:
    """Measures how many FLOP a second the device makes in float32 matrix products."""
    import jax
    import jax.numpy as jnp

    a = jnp.eye(size)
    many = jax.jit(lambda a: jax.lax.fori_loop(0, 20, lambda _, c: a @ c, a))
    found = timed(lambda: lambda: jax.block_until_ready(many(a)), rounds)
    assert found.seconds is not None
    return 20 * 2 * size**3 / found.seconds


def flops(workload: Workload) -> float:
    """Returns the FLOP of one step of one trial, as the compiler counts them."""
    import jax

    _, (start, step, _, keys) = rivals.trainer(workload)
    h, data = rivals.given(workload.arrays(1))
    h = jax.tree.map(lambda x: x[0], h)
    cost = jax.jit(step).lower(start(h, data), keys()[0], h, data).compile().cost_analysis()
    return float(cost["flops"])


def lanes_against_throughput(
    workloads: dict[str, Workload], lanes: Sequence[int], rounds: int, peak: float
) -> tuple[str, dict[str, dict[int, Timed]]]:
    """Times programs of more and more lanes, all at once; returns the table, and the times by model and lanes."""
    lines, found = [], {}
    for name, workload in workloads.items():
        arithmetic, found[name] = flops(workload), {}
        for count in lanes:
            each = found[name][count] = timed(lambda w=workload, n=count: swept(w, n, n), rounds)
            done, one = count * workload.steps, found[name][lanes[0]].seconds
            lines.append(
                (
                    name,
                    f"{count:,}",
                    each.shown(lambda s, w=workload: f"{1e3 * s / w.steps:.3f}"),
                    each.shown(lambda s, done=done: f"{done / s:,.0f}"),
                    each.shown(lambda s, done=done, a=arithmetic: f"{done * a / s / peak:.1%}"),
                    each.shown(lambda s, one=one: f"{s / one:.2f}" if one else "—"),
                )
            )
            print(table.line(lines[-1]), flush=True)
    header = ("model", "lanes", "ms a step", "lane-steps a second", "share of products", f"time ÷ that of {lanes[0]}")
    return table.markdown(lines, header), found


def grouped(workload: Workload, lanes: Sequence[int], rounds: int, found: dict[int, Timed]) -> str:
    """Times the CNN as vmap makes it, with grouped convolutions; returns the table of it beside hpjax's."""
    lines = []
    for count in lanes:
        plain = timed(lambda n=count: rivals.vmapped(workload, workload.arrays(n)).run, rounds)
        ours = found[count]
        ratio = f"{plain.seconds / ours.seconds:.2f}×" if plain.seconds and ours.seconds else "—"
        seconds = (each.shown(lambda s: f"{1e3 * s / workload.steps:.3f}") for each in (plain, ours))
        lines.append((f"{count:,}", *seconds, ratio))
        print(table.line(lines[-1]), flush=True)
    return table.markdown(lines, ("lanes", "jit(vmap(scan)), ms a step", "hpjax, ms a step", "ratio"))


def chosen(workloads: dict[str, Workload], most: int, rounds: int, found: dict[str, dict[int, Timed]]) -> str:
    """Times the width that hpjax chooses; returns the table of it beside the best of the first table."""
    lines = []
    for name, workload in workloads.items():
        width = sweep_of(workload, workload.arrays(most)).plan(measure=True).widths[0]
        own = timed(lambda w=workload: swept(w, most), rounds)
        speeds = {n: n / each.seconds for n, each in found[name].items() if each.seconds}
        best = max(speeds, key=speeds.__getitem__, default=None)
        share = "—" if own.seconds is None or best is None else f"{most / own.seconds / speeds[best]:.0%}"
        lines.append((name, f"{most:,}", str(width), "—" if best is None else str(best), own.error or share))
        print(table.line(lines[-1]), flush=True)
    return table.markdown(lines, ("model", "trials", "width chosen", "best width found", "speed, of the best"))


def verdict(found: dict[int, Timed]) -> str:
    """Returns a sentence that says whether the target is reached."""
    one, many = (found.get(n, Timed(None, "not measured")) for n in (1, LANES_OF_TARGET))
    if one.seconds is None or many.seconds is None:
        return f"MLP, {LANES_OF_TARGET:,} lanes: {one.error or many.error}"
    ratio = many.seconds / one.seconds
    reached = "reached" if ratio <= TARGET else "not reached"
    return f"MLP, {LANES_OF_TARGET:,} lanes take {ratio:.2f} times as long as one; at most {TARGET:.0f}: {reached}"


def main(
    out: Path, lanes: Sequence[int] = LANES, rounds: int = 3, steps: int | None = None, product: int = 8192
) -> None:
    """Prints the tables and writes them to ``gpu.md`` or ``tpu.md``; with ``steps`` and few lanes it runs anywhere."""
    import jax

    workloads = {name: replace(w, steps=steps or w.steps) for name, w in WORKLOADS.items()}
    peak = rate(rounds, product)
    device = jax.devices()[0].device_kind
    print(f"{device}: {peak / 1e12:.3g} TFLOP/s in float32 products of {product}", flush=True)
    first, found = lanes_against_throughput(workloads, lanes, rounds, peak)
    second = grouped(workloads["CNN"], lanes, rounds, found["CNN"])
    third = chosen(workloads, lanes[-1], rounds, found)
    here = records.today(peers="")
    about = f"{here.date}, commit {records.commit()}: {device}; {here.versions}; medians of {rounds} rounds."
    text = [
        about,
        f"{peak / 1e12:.3g} TFLOP/s in float32 products of {product}.",
        first,
        verdict(found["MLP"]),
        second,
        third,
    ]
    out.mkdir(parents=True, exist_ok=True)
    name = jax.default_backend()
    (out / f"{'small' if name == 'cpu' else name}.md").write_text("\n\n".join(text) + "\n")
    print(verdict(found["MLP"]))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--lanes", type=int, nargs="+", default=LANES)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, help="in place of each model's own")
    parser.add_argument("--product", type=int, default=8192, help="size of the matrices whose product is the measure")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results")
    given = parser.parse_args()
    main(given.out, given.lanes, given.rounds, given.steps, given.product)
