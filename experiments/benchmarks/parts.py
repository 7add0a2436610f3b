"""What the programs of a sweep are made of: what the compiler sees of each part, and where the time of a step goes.

python experiments/benchmarks/parts.py [mlp transformer lstm cnn gan ppo]

prints two tables. The first has the parts of a program, each vectorized for 8 lanes and compiled alone, with random
draws and convolutions as hpjax writes them, and then the whole programs of the sweep: equations of the jaxpr,
instructions that XLA gets, kernels that it makes of them, and CPU seconds of compiling. The second has the share of the
time of ``advance`` that each kind of operation takes, by JAX's profiler.
"""

import argparse
import gzip
import json
import re
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import table
from jax.extend import core
from ours import engine_of, sweep_of
from ports import Port
from rows import COMPILED
from worker import cores, named

WIDTH = 8
SEGMENT = 30
# What runs no kernel.
FREE = {"parameter", "tuple", "get-tuple-element", "constant", "bitcast", "while", "call", "conditional"}


class Size(NamedTuple):
    """What a compiler gets and makes of a program."""

    equations: int | None
    instructions: int
    kernels: int
    seconds: float

    def less(self, *parts: "Size") -> "Size":
        """Returns what is left without some parts."""
        instructions, kernels, seconds = (
            own - sum(others) for own, *others in zip(self[1:], *(part[1:] for part in parts), strict=True)
        )
        return Size(None, instructions, kernels, seconds)

    @property
    def cells(self) -> tuple[str, ...]:
        counted = "—" if self.equations is None else f"{self.equations:,}"
        return counted, f"{self.instructions:,}", f"{self.kernels:,}", f"{self.seconds:.2f}"


def size_of(lowered: Any, counted: int | None = None) -> Size:
    """Compiles a program and counts; how many equations its jaxpr has is given where that is known."""
    begun = time.process_time()
    text = lowered.compile().as_text()
    seconds = time.process_time() - begun
    return Size(counted, lowered.as_text().count(" = "), kernels(text), seconds)


def equations(jaxpr: core.Jaxpr) -> int:
    """Returns how many equations a jaxpr has, bodies of loops and functions counted once for each use."""
    return sum(1 + sum(map(equations, core.jaxprs_in_params(e.params))) for e in jaxpr.eqns)


def computations(text: str) -> dict[str, list[str]]:
    """Returns name to the instructions of each computation of a compiled program."""
    found: dict[str, list[str]] = {}
    name = ""
    for line in text.splitlines():
        if head := re.match(r"^(?:ENTRY )?%?([\w.\-]+)[ .(].*\{\s*$", line):
            name = head[1]
        elif line.startswith("  ") and " = " in line:
            found.setdefault(name, []).append(line.strip())
    return found


def kernels(text: str) -> int:
    """Returns how many instructions of a compiled program run as kernels: those that are in no fusion."""
    inside = set(re.findall(r"(?:calls|to_apply)=%?([\w.\-]+)", text))
    every = (line for name, lines in computations(text).items() if name not in inside for line in lines)
    opcodes = (re.search(r" = (?:\(.*?\)|\S+) ([a-z][\w\-]*)\(", line) for line in every)
    return sum(found is not None and found[1] not in FREE for found in opcodes)


def parts_of(sweep: Any) -> dict[str, tuple[Callable, tuple[int | None, ...] | None, tuple[Any, ...]]]:
    """Returns the functions of a lane, each with the axes of 8 lanes that share their noise, and with its arguments.

    The batch has no such axes: it is one for all lanes.
    """
    import hpjax as hpx

    program = sweep.program
    points = [*map(sweep.space.canonical, sweep.sampler.ask(sweep.space, [], sweep.trials or WIDTH, sweep.seed))]
    h = {name: jnp.asarray([points[i % len(points)][name] for i in range(WIDTH)]) for name in points[0]}
    key, t = jax.random.key(0), jnp.int32(0)
    train, valid = program.data.train if program.data else None, program.data.valid if program.data else None

    def init(key, h):
        return program.init(key, hpx.Hparams(h, h))

    def batch(key, t, train, h):
        return program.batch(key, t, train, hpx.Hparams(h, h))

    def rebuilt(arrays, h):
        # Made anew in each trace, since functions in it may close over hyperparameters; its own arrays are not used.
        return jax.tree.unflatten(jax.tree.structure(init(key, h)), arrays)

    def step(key, arrays, batch, h):
        return program.step(key, rebuilt(arrays, h), batch, hpx.Hparams(h, h))

    def evaluate(key, arrays, valid, h):
        return program.evaluate(key, rebuilt(arrays, h), valid, hpx.Hparams(h, h))

    state = jax.eval_shape(jax.vmap(arrays_of(init), (None, 0)), key, h)
    one = {name: values[0] for name, values in h.items()}
    drawn = jax.eval_shape(batch, key, t, train, one)
    return {
        "init": (arrays_of(init), (None, 0), (key, h)),
        "keys, shuffle and batch": (batch, None, (key, t, train, one)),
        "step": (arrays_of(step), (None, 0, None, 0), (key, state, drawn, h)),
        "evaluate": (arrays_of(evaluate), (None, 0, None, 0), (key, state, valid, h)),
    }


def arrays_of(function: Callable) -> Callable:
    """Returns a function that gives the arrays of what another gives, whose other parts may not leave a trace."""
    return lambda *arguments: jax.tree.leaves(function(*arguments))


def compiler_table(sweep: Any) -> str:
    """Returns the first table."""
    from hpjax.core.threefry import lowered_for
    from hpjax.engine.compile import FUNCTIONS
    from hpjax.engine.loop_sums import needed
    from hpjax.engine.lowering import lowered, lowering

    def compiled_alone(function: Callable, axes: tuple[int | None, ...] | None, arguments: tuple[Any, ...]) -> Size:
        lanes = function if axes is None else jax.vmap(function, axes)
        closed = jax.make_jaxpr(lanes)(*arguments)
        closed = closed.replace(jaxpr=closed.jaxpr.replace(eqns=needed(closed.jaxpr.eqns, closed.jaxpr.outvars)))
        return size_of(jax.jit(core.jaxpr_as_fun(closed)).lower(*jax.tree.leaves(arguments)), equations(closed.jaxpr))

    plan, programs, _, compiled = engine_of(sweep)
    config, alone = programs.config(plan, 0), {}
    for name, (function, *given) in parts_of(sweep).items():
        if name == "step":
            alone["step, as JAX writes it"] = compiled_alone(function, *given)
        draws = config.drawn and (name == "init" or config.shapes.draws)
        with lowered_for("cpu"), lowering(config.lowered, draws):
            alone[name] = compiled_alone(lowered(function), *given)
    whole = {name: size_of(compiled.lower(name).traced) for name in FUNCTIONS}
    sizes = {f"{name}, alone": size for name, size in alone.items()} | whole
    # Chunks cut out and put back, whether lanes live, totals and divergence; in evaluate also means, whether parameters
    # are finite, and how the program reacts.
    for name, parts in {"advance": ("keys, shuffle and batch", "step"), "evaluate": ("evaluate",)}.items():
        sizes[f"{name}, less its parts"] = whole[name].less(*(alone[part] for part in parts))
    lines = [(name, *size.cells) for name, size in sizes.items()]
    return table.markdown(lines, ("part", "equations", "instructions", "kernels", "CPU seconds"))


def profile_table(sweep: Any) -> str:
    """Returns the second table."""
    plan, programs, members, compiled = engine_of(sweep)
    text = compiled.lower("advance")[0].compile().as_text()
    kinds = {name: kind_of(line) for lines in computations(text).values() for name, line in map(_named, lines)}
    lanes = programs.lanes(plan, 0, compiled, members)
    segment = min(SEGMENT, int(members.budget.max()) // 2)
    lanes.advance(segment, evaluate=False)
    with tempfile.TemporaryDirectory() as folder:
        with jax.profiler.trace(folder):
            lanes.advance(2 * segment, evaluate=False)
        (file,) = Path(folder).rglob("*.trace.json.gz")
        events = json.loads(gzip.decompress(file.read_bytes()))["traceEvents"]
    spent: Counter[str] = Counter()
    for event in events:
        if event.get("ph") == "X" and event["name"] in kinds and kinds[event["name"]]:
            spent[kinds[event["name"]]] += event["dur"]
    total = sum(spent.values())
    lines = [(kind, f"{took / total:.0%}") for kind, took in spent.most_common()]
    return table.markdown(lines, ("advance", "share of the time"))


def _named(line: str) -> tuple[str, str]:
    return line.removeprefix("ROOT ").partition(" = ")[0].lstrip("%"), line


def kind_of(line: str) -> str:
    """Returns what an instruction of a compiled program is for, by the name of the operation that it comes from."""
    found = re.search(r'op_name="([^"]*)"', line)
    opcode = re.search(r" = (?:\(.*?\)|\S+) ([a-z][\w\-]*)\(", line)
    if opcode is None or opcode[1] in FREE:
        return ""
    name = found[1] if found else ""
    if "dot_general" in name or "conv_general" in name or opcode[1] in ("dot", "convolution", "custom-call"):
        return "products, backward" if "transpose(" in name else "products, forward"
    if "shuffled" in name or "threefry" in name or "random" in name:
        return "keys and shuffle"
    if "transpose(" in name:
        return "backward, other"
    if "jvp(" in name:
        return "forward, other"
    return "copies" if opcode[1] == "copy" or not name else "update and bookkeeping"


def main() -> None:
    choices = {name: (workload, trials) for name, _, workload, trials in COMPILED}
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join(choices))
    given = parser.parse_args()
    jax.config.update("jax_platforms", "cpu")
    jax.config.update("jax_num_cpu_devices", cores())
    jax.config.update("jax_enable_compilation_cache", False)
    for name in given.names or list(choices)[:1]:
        place, trials = choices[name]
        workload = named(place)
        sweep = workload.sweep() if isinstance(workload, Port) else sweep_of(workload, workload.arrays(trials), width=8)
        print(f"\n{name}\n\n{compiler_table(sweep)}\n\n{profile_table(sweep)}", flush=True)


if __name__ == "__main__":
    main()
