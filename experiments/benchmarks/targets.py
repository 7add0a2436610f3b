"""What sweeps take of accelerators that are not there, by the programs that XLA compiles for them.

python experiments/benchmarks/targets.py [--targets v5e:2x2 h100] [--work MLP] [--width 1024] [--kernels xla] [--out .]

It needs the extras tpu-target and gpu-target, and no accelerator. One device of each target is planned for.
"""

import argparse
import re
from collections.abc import Mapping, Sequence
from math import prod
from pathlib import Path
from typing import Any

import cnn
import lstm
import mlp
import records
import table
import transformer
from ours import sweep_of
from workload import Workload

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "accelerators.md"
BLOCK = re.compile(r"(?<=<!-- targets: begin -->\n).*?(?=<!-- targets: end -->)", re.DOTALL)
TARGETS = ("v5e:2x2", "v6e:2x2", "h100")
# The workloads of the benchmarks, and as many lanes of each as are planned for one device.
WORK = {"MLP": (mlp.sweep, 4096), "CNN": (cnn.sweep, 64), "transformer": (transformer.sweep, 64)}
WORK["LSTM"] = (lstm.sweep, 64)
DTYPES = ("float32", "bfloat16")
HEADER = (
    "work",
    "computed in",
    "device",
    "room for",
    "width",
    "temporaries a lane",
    "bytes a lane-step",
    "on chip",
    "of what is needed",
    "without padding",
    "at best",
    "bound by",
    "operations a step",
    "loops in it",
    "collectives",
)


def needed(workload: Workload, state: int, parameters: int) -> float:
    """Returns the bytes that a lane-step moves if all is written once and read once, in float32.

    Those are the state of the lane, the gradients of its parameters, and the results of the forward pass's products and
    convolutions with their gradients.

    Args:
      workload: what is trained.
      state: bytes of a lane's state.
      parameters: how many numbers its parameters are.
    """
    import jax
    from jax.extend import core

    arrays, model = workload.arrays(1), workload.model()
    x = arrays["x"][: workload.batch]

    def made(jaxpr, times=1):
        total = 0
        for equation in jaxpr.eqns:
            inner = list(core.jaxprs_in_params(equation.params))
            again = times * equation.params.get("length", 1) if equation.primitive.name == "scan" else times
            total += sum(made(each, again) for each in inner)
            if equation.primitive.name in ("dot_general", "conv_general_dilated"):
                total += times * sum(4 * prod(v.aval.shape) for v in equation.outvars)
        return total

    variables = jax.eval_shape(model.init, jax.random.key(0), x)
    return 2 * (state + 4 * parameters + 2 * made(jax.make_jaxpr(model.apply)(variables, x).jaxpr))


def row(name: str, dtype: str, target: str, asked: Mapping[str, Any]) -> tuple[str, ...]:
    """Plans a workload for one device of a target; returns the row of the table.

    Args:
      name: the workload.
      dtype: in what it computes.
      target: the device.
      asked: arguments of ``Sweep`` that the plan would choose: ``width`` and ``kernels``.
    """
    from hpjax.core import format as text

    workload, lanes = WORK[name]
    trained = {} if dtype == "float32" else {"compute_dtype": dtype}
    sweep = sweep_of(workload, workload.arrays(lanes), trained=trained, **asked)
    plan = sweep.plan(target=target, count=1)
    (found,), (widest,) = plan.footprints, plan.widest
    moved = found.bytes + found.near_bytes
    ideal = needed(workload, plan.shapes[0].lane_bytes, plan.shapes[0].parameters)
    return (
        name,
        dtype,
        target.partition(":")[0],
        f"{widest:,}",
        f"{found.width:,}",
        text.size(found.memory.temporaries / found.width),
        text.size(found.bytes),
        text.size(found.near_bytes),
        f"{moved / ideal:.2f}×",
        f"{moved * (1 - found.padding) / ideal:.2f}×",
        f"{1e6 * found.seconds(plan.target.chip):.3g} µs",
        found.bound(plan.target.chip),
        f"{found.step.kernels:,.0f}",
        str(found.step.loops + found.step.conditionals),
        str(sum(found.collectives.values())),
    )


def main(targets: Sequence[str], work: Sequence[str], asked: Mapping[str, Any], out: Path) -> None:
    """Prints the table; where nothing is asked for, writes it to ``targets.md`` and, of all, to the documentation."""
    rows = []
    print(table.line(HEADER), flush=True)
    for target in targets:
        for name in work:
            for dtype in DTYPES:
                rows.append(row(name, dtype, target, asked))
                print(table.line(rows[-1]), flush=True)
    if asked:
        return
    here = records.today(peers="")
    about = f"{here.date}, commit {records.commit()}: {here.versions}; compiled for these devices, run on none."
    text = f"{table.markdown(rows, HEADER)}\n\n{about}\n"
    out.mkdir(parents=True, exist_ok=True)
    (out / "targets.md").write_text(text, "utf-8")
    if (tuple(targets), tuple(work)) == (TARGETS, tuple(WORK)):
        PAGE.write_text(BLOCK.sub(lambda _: text, PAGE.read_text("utf-8")), "utf-8")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--targets", nargs="+", default=TARGETS)
    parser.add_argument("--work", nargs="+", default=list(WORK))
    parser.add_argument("--width", type=int, help="in place of the one that the plan finds")
    parser.add_argument("--kernels", choices=("batched", "xla"), help="in place of those that the plan chooses")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results")
    given = parser.parse_args()
    settings = {name: getattr(given, name) for name in ("width", "kernels") if getattr(given, name) is not None}
    main(given.targets, given.work, settings, given.out)
