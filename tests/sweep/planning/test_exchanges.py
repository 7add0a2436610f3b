"""What the devices of a lane exchange in a step: in plans that compile, events and on the progress, by other counts."""

import json
import re
from dataclasses import asdict, replace
from math import prod

import jax
import jax.numpy as jnp
import pytest
from click.testing import CliRunner
from jax.sharding import PartitionSpec

import hpjax as hpx
from hpjax.engine import compile as compiling
from hpjax.engine import exchanges, hlo
from hpjax.frontends.cli import main
from hpjax.sweep.planning import autotune, contender
from tests.support import spans
from tests.support.spans import DATA, PARAMETERS, TWO, WIDE, sweep

COLLECTIVE = r" = (.*?) (?:all-reduce|all-gather|reduce-scatter|collective-permute|all-to-all)(?:-start)?\("
REMEDY = "; plan(measure=True) compiles and counts"
WHOLE = 4 * PARAMETERS + 4  # bytes of a lane's gradients, and of its loss
KERNEL = 4 * WIDE**2  # bytes of the kernel between two layers


def rows(path, shape):
    return PartitionSpec("data" if shape[0] == WIDE else None)


def counted(text):
    """Collectives of a compiled program, and the bytes of what they give, all of them in the body of one inner loop."""
    computations = dict(re.findall(r"^(?:ENTRY )?%?([\w.\-]+) \(.*?\{\n(.*?)^\}", text, re.M | re.S))
    body = r" while\(.*body=%?([\w.\-]+)"
    outer = [name for inside in computations.values() for name in re.findall(body, inside)]
    inner = {name for each in outer for name in re.findall(body, computations[each])}
    found = {name: re.findall(COLLECTIVE, inside) for name, inside in computations.items()}
    ((name, kinds),) = ((name, kinds) for name, kinds in found.items() if kinds)
    assert name in inner
    arrays = [each for kind in kinds for each in re.findall(r"(\w+)\[([\d,]*)\]", kind)]
    assert {dtype for dtype, _ in arrays} == {"f32"}
    return len(kinds), sum(4 * prod(map(int, filter(None, shape.split(",")))) for _, shape in arrays)


def line(plan):
    """What a plan says that devices exchange."""
    (found,) = (line for line in str(plan).splitlines() if "exchange" in line)
    return found


def sized(sizes, rates=(0.01, 0.02), **options):
    """A sweep of a group for each size of the only weights, which compile quickly."""

    def step(key, w, batch, h):
        return w - h.rate * jax.grad(lambda w: ((batch.x.mean(1)[:, None] - w[None]) ** 2).mean())(w), {}

    own = hpx.Program(
        lambda key, h: jnp.zeros(h.size),
        step,
        lambda key, w, split, h: {"loss": (w**2).sum()},
        data=hpx.Data(DATA.train._replace(x=DATA.train.x[:48], y=DATA.train.y[:48]), DATA.valid),
        steps=2,
    )
    space = hpx.Space(size=hpx.Choice(8, 16), rate=hpx.LogUniform(1e-3, 0.1))
    points = hpx.Manual([{"size": size, "rate": rate} for size in sizes for rate in rates])
    return hpx.Sweep(own, space, **{"sampler": points, "width": 1, **TWO, **options})


@pytest.fixture(scope="module")
def fsdp():
    return sweep(**TWO, partition="fsdp")


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"width": 2}, (1, 2 * WHOLE)),  # of two lanes, in one all-reduce
        ({"partition": "fsdp"}, (2, WHOLE + KERNEL)),  # an all-gather of the only weights that are split
        ({"partition": rows}, None),
    ],
    ids=["whole", "fsdp", "function"],
)
def test_plans_that_measure_count_what_is_exchanged(options, expected):
    own = sweep(**TWO, **options)
    found = counted(spans.compiled(own))
    plan = own.plan(measure=True)
    assert plan.exchanges == (found,)
    assert expected in (found, None)
    times, size = found
    told = f"{times} time{'s' * (times > 1)}, {size / 2**10:.1f} KiB in all"
    assert line(plan) == f"in a step the devices of a chunk of lanes exchange arrays {told}"
    assert line(own.plan()).endswith(REMEDY)


def test_runs_tell_it_when_a_program_is_compiled(fsdp, capsys):
    events = []
    fsdp.run(on_event=events.append)
    (event,) = (event for event in events if event.kind == "compiled")
    assert event.exchanges == fsdp.plan(measure=True).exchanges[0]
    assert event.exchanges == (event.exchanges.times, event.exchanges.bytes) == (2, WHOLE + KERNEL)
    assert json.loads(json.dumps(asdict(event)))["exchanges"] == [2, WHOLE + KERNEL]
    (shown,) = (line for line in capsys.readouterr().err.splitlines() if "compiled in" in line)
    assert shown.endswith(f" s; {line(fsdp.plan(measure=True))}")


def test_nothing_is_read_where_each_lane_has_a_device(monkeypatch):
    monkeypatch.setattr(exchanges, "CompiledText", None)
    alone = replace(sized((8,)), devices_per_lane=1)
    assert alone.plan(measure=True).exchanges == ()
    assert [event.exchanges for event in alone.events() if event.kind == "compiled"] == [None]


def test_groups_are_counted_apart_at_the_width_that_is_best(monkeypatch):
    monkeypatch.setattr(contender, "EACH", 0.0)
    monkeypatch.setattr(autotune, "SECONDS", 1e9)  # until all widths are known
    own = sized((8, 16), rates=(0.01, 0.02, 0.03, 0.04), width=None)
    plan = own.plan(measure=True)
    assert "speed by width" in str(plan)
    assert plan.exchanges == tuple((1, 4 * each.static["size"] * plan.widths[each.number]) for each in plan.groups)
    told = [line for line in str(plan).splitlines() if "exchange arrays" in line]
    assert [line.partition(":")[0] for line in told] == ["group 0", "group 1"]
    lowered = []
    monkeypatch.setattr(compiling.Compiled, "lower", lambda self, name: lowered.append(name))
    assert own.plan(measure=True).exchanges == plan.exchanges
    assert not lowered, "what trains was compiled"


def test_groups_of_other_shards_are_not_compiled():
    plan = sized((8, 16), shard=(1, 4)).plan(measure=True)
    assert [bool(each.waves) for each in plan.arrangements] == [True, False]
    assert plan.exchanges == ((1, 32), None)


@pytest.mark.parametrize("why", ["unknown text", "does not compile"])
def test_where_nothing_can_be_counted_plans_say_what_they_said(why, monkeypatch):
    own = sized((8, 16))
    without = [line.removesuffix(REMEDY) for line in str(own.plan()).splitlines() if "exchange" in line]

    def of_sixteen(compiled, mesh):
        if "f32[1,16]" in compiled.as_text():
            raise RuntimeError("out of memory")

    if why == "unknown text":
        monkeypatch.setattr(exchanges, "CompiledText", lambda text: hlo.CompiledText("HloModule of tomorrow"))
        with pytest.warns(RuntimeWarning, match="as_text: jax .* is not counted"):
            plan = own.plan(measure=True)
        assert plan.exchanges == (None, None)
    else:
        monkeypatch.setattr(compiling, "check_exchanges", of_sixteen)
        plan = own.plan(measure=True)
        assert plan.exchanges == ((1, 32), None)
    told = [line for line in str(plan).splitlines() if "exchange" in line]
    assert told[-1] == without[-1]
    assert (told[0] == without[0]) == (why == "unknown text")


def test_the_command_line_counts_too(tmp_path):
    file = tmp_path / "sweep.py"
    file.write_text("from tests.sweep.planning.test_exchanges import sized\n\nsweep = sized((8,))\n")
    found = CliRunner().invoke(main, ["plan", str(file), "--measure"], catch_exceptions=False)
    assert "in a step the devices of a chunk of lanes exchange arrays 1 time, 32 B in all\n" in found.output
