"""What is read of a compiled program's text, counted by hand of a text as TPUs and GPUs have it."""

import pytest

from hpjax.engine.hlo import CompiledText
from hpjax.engine.hlo_text import types_of

# ruff: noqa: E501

# Chunks, steps in them, and in a step: a fusion that updates 4 of 8 rows, a product, an array that moves to the chip
# and back, a loop of 3 turns, and one that turns until something holds.
TEXT = """
HloModule jit_advance, entry_computation_layout={(f32[8,128]{1,0:T(8,128)})->f32[8,128]{1,0:T(8,128)}}

%updated (p0: f32[8,128], p1: f32[4,128], p2: s32[]) -> f32[8,128] {
  %p0 = f32[8,128]{1,0:T(8,128)} parameter(0)
  %p1 = f32[4,128]{1,0:T(8,128)} parameter(1)
  %p2 = s32[]{:T(128)} parameter(2)
  %zero = s32[]{:T(128)} constant(0)
  %sliced = f32[4,128]{1,0:T(8,128)} dynamic-slice(%p0, %p2, %zero), dynamic_slice_sizes={4,128}
  %sum = f32[4,128]{1,0:T(8,128)} add(%sliced, %p1)
  ROOT %done = f32[8,128]{1,0:T(8,128)} dynamic-update-slice(%p0, %sum, %p2, %zero)
}

%inner_body (i: (s32[], f32[8,128])) -> (s32[], f32[8,128]) {
  %i = (s32[]{:T(128)}, f32[8,128]{1,0:T(8,128)}) parameter(0)
  %n = s32[]{:T(128)} get-tuple-element(%i), index=0
  %x = f32[8,128]{1,0:T(8,128)} get-tuple-element(%i), index=1
  %twice = f32[8,128]{1,0:T(8,128)} add(%x, %x)
  ROOT %o = (s32[]{:T(128)}, f32[8,128]{1,0:T(8,128)}) tuple(%n, %twice)
}

%three (i: (s32[], f32[8,128])) -> pred[] {
  %i = (s32[]{:T(128)}, f32[8,128]{1,0:T(8,128)}) parameter(0)
  %n = s32[]{:T(128)} get-tuple-element(%i), index=0
  %limit = s32[]{:T(128)} constant(3)
  ROOT %less = pred[]{:T(512)} compare(%n, %limit), direction=LT
}

%until (i: (s32[], f32[8,128])) -> pred[] {
  %i = (s32[]{:T(128)}, f32[8,128]{1,0:T(8,128)}) parameter(0)
  %n = s32[]{:T(128)} get-tuple-element(%i), index=0
  ROOT %less = pred[]{:T(512)} compare(%n, %n), direction=LT
}

%step (s: (s32[], f32[8,128], f32[4,128])) -> (s32[], f32[8,128], f32[4,128]) {
  %s = (s32[]{:T(128)}, f32[8,128]{1,0:T(8,128)}, f32[4,128]{1,0:T(8,128)}) parameter(0)
  %n = s32[]{:T(128)} get-tuple-element(%s), index=0
  %x = f32[8,128]{1,0:T(8,128)} get-tuple-element(%s), index=1
  %y = f32[4,128]{1,0:T(8,128)} get-tuple-element(%s), index=2
  %fusion = f32[8,128]{1,0:T(8,128)} fusion(%x, %y, %n), kind=kLoop, calls=%updated
  %copy-start = (f32[8,128]{1,0:T(8,128)S(1)}, f32[8,128]{1,0:T(8,128)}, u32[]{:S(2)}) copy-start(%fusion)
  %copy-done = f32[8,128]{1,0:T(8,128)S(1)} copy-done(%copy-start)
  %all-reduce = f32[8,128]{1,0:T(8,128)} all-reduce(%copy-done), to_apply=%until
  %buffer = f32[8,128]{1,0:T(8,128)} custom-call(), custom_call_target="AllocateBuffer"
  %nothing = s32[]{:T(128)} constant(0)
  %begin = (s32[]{:T(128)}, f32[8,128]{1,0:T(8,128)}) tuple(%nothing, %all-reduce)
  %known = (s32[]{:T(128)}, f32[8,128]{1,0:T(8,128)}) while(%begin), condition=%three, body=%inner_body
  %open = (s32[]{:T(128)}, f32[8,128]{1,0:T(8,128)}) while(%known), condition=%until, body=%inner_body
  %z = f32[8,128]{1,0:T(8,128)} get-tuple-element(%open), index=1
  ROOT %o = (s32[]{:T(128)}, f32[8,128]{1,0:T(8,128)}, f32[4,128]{1,0:T(8,128)}) tuple(%n, %z, %y)
}

%chunk (s: (s32[], f32[8,128], f32[4,128])) -> (s32[], f32[8,128], f32[4,128]) {
  %s = (s32[]{:T(128)}, f32[8,128]{1,0:T(8,128)}, f32[4,128]{1,0:T(8,128)}) parameter(0)
  ROOT %steps = (s32[]{:T(128)}, f32[8,128]{1,0:T(8,128)}, f32[4,128]{1,0:T(8,128)}) while(%s), condition=%until, body=%step
}

ENTRY %main (x: f32[8,128]) -> f32[8,128] {
  %x = f32[8,128]{1,0:T(8,128)} parameter(0)
  %chunks = (s32[]{:T(128)}, f32[8,128]{1,0:T(8,128)}, f32[4,128]{1,0:T(8,128)}) while(%x), condition=%until, body=%chunk
  ROOT %y = f32[8,128]{1,0:T(8,128)} get-tuple-element(%chunks), index=1
}
"""
ROWS = 128 * 4


@pytest.fixture(scope="module")
def step():
    return CompiledText(TEXT).step


def test_bytes_of_a_step(step):
    """A slice of 4 rows is padded to 8; of the array that it is cut of and written to nothing else moves."""
    fusion = 8 * ROWS + 8 * ROWS + 8 * ROWS + 4  # the slice, the other summand, the update, and the index
    moved_to_chip, reduced, turns = 8 * ROWS, 8 * ROWS, (3 + 1) * 3 * 8 * ROWS
    assert step.bytes == fusion + moved_to_chip + reduced + turns
    assert step.near_bytes == 8 * ROWS + 8 * ROWS, "written there by the copy, and read by the collective"


def test_padding_of_a_step(step):
    assert step.padding == 4 * ROWS + 4 * ROWS + 4 * ROWS, "of the slice, of the other summand and of the update"


def test_operations_of_a_step(step):
    assert step.kernels == 1 + 1 + 1 + 3 + 1, "buffers and tuples are free, and a copy is one operation"
    assert (step.loops, step.open_loops) == (2, 1), "the one of three turns is known"
    assert step.conditionals == 0
    assert step.collectives == {"all-reduce": 1}
    assert (step.exchanges, step.exchanged) == (1, 8 * ROWS)


def test_an_exchange_that_is_spread_over_fusions():
    """It begins in one and ends in the next, with the same channel, within loops of three turns and of one."""
    gathered = """
%{0} (p0: f32[8,128]) -> f32[16,128] {{
  %p0 = f32[8,128]{{1,0:T(8,128)}} parameter(0)
  ROOT %gathered.{0} = f32[16,128]{{1,0:T(8,128)}} all-gather(%p0), channel_id=7, dimensions={{0}}
}}
"""
    line = "  %{0}.1 = f32[16,128]{{1,0:T(8,128)}} fusion(%x), kind=kCustom, calls=%{0}\n"
    fused = TEXT.replace("  %twice =", line.format("begun") + line.format("ended") + "  %twice =")
    fused = fused.replace("%inner_body (", gathered.format("begun") + gathered.format("ended") + "\n%inner_body (")
    found = CompiledText(fused).step
    assert (found.exchanges, found.exchanged) == (1 + (3 + 1), 8 * ROWS + (3 + 1) * 16 * ROWS)
    assert found.collectives == {"all-reduce": 1, "all-gather": 2}, "one in each loop"


def test_a_loop_that_begins_elsewhere():
    """A counter that begins at 1 turns twice, and one whose beginning is computed an unknown number of times."""
    later = CompiledText(TEXT.replace("%nothing = s32[]{:T(128)} constant(0)", "%nothing = s32[]{:T(128)} constant(1)"))
    assert later.step.kernels == CompiledText(TEXT).step.kernels - 1
    computed = CompiledText(TEXT.replace("tuple(%nothing, %all-reduce)", "tuple(%n, %all-reduce)"))
    assert computed.step.open_loops == 2


def test_a_loop_that_counts_in_twos():
    """Compilers for TPUs unroll some loops: one that counts to three takes two turns."""
    end = "  ROOT %o = (s32[]{:T(128)}, f32[8,128]{1,0:T(8,128)}) tuple(%n, %twice)"
    counting = "  %two = s32[]{:T(128)} constant(2)\n  %next = s32[]{:T(128)} add(%n, %two)\n"
    twos = CompiledText(TEXT.replace(end, counting + end.replace("%n,", "%next,"))).step
    assert twos.kernels == 1 + 1 + 1 + 2 * 2 + 2, "two in a turn: the sum of the array, and that of the counter"
    assert twos.open_loops == 1


def test_an_update_that_is_not_in_place():
    """Of an array that is made for it, all is written; and where the update is no result, all of it is read."""
    made = TEXT.replace("dynamic-update-slice(%p0,", "dynamic-update-slice(%fresh,").replace(
        "  %zero = s32[]", "  %fresh = f32[8,128]{1,0:T(8,128)} broadcast(%zero), dimensions={}\n  %zero = s32[]"
    )
    before, after = (CompiledText(text).step.bytes for text in (TEXT, made))
    assert after == before, "8 rows are written either way, the 4 of the update being padded to 8"
    used = TEXT.replace("ROOT %done", "%done").replace(
        "%sum, %p2, %zero)\n}", "%sum, %p2, %zero)\n  ROOT %whole = f32[8,128]{1,0:T(8,128)} negate(%done)\n}"
    )
    assert CompiledText(used).step.bytes == before, "8 rows read, of the slice or of all"


def test_copies_count_at_either_end():
    """What is cut out of the large memory into that on the chip is read in one and written in the other."""
    line = (
        "  %cut = f32[4,128]{1,0:T(8,128)S(1)} dynamic-slice(%x, %n, %n), dynamic_slice_sizes={4,128}\n  %copy-start ="
    )
    more = CompiledText(TEXT.replace("  %copy-start =", line)).step
    once = CompiledText(TEXT).step
    assert more.bytes - once.bytes == more.near_bytes - once.near_bytes == 8 * ROWS


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("f32[256,64,10]{2,1,0:T(8,128)}", 256 * 64 * 128 * 4),  # the 10 are padded to 128
        ("f32[256,64,10]{0,1,2:T(8,128)}", 256 * 64 * 10 * 4),  # lanes lie next to each other
        ("bf16[64,64]{1,0:T(8,128)(2,1)S(1)}", 64 * 128 * 2),
        ("f32[64]{0}", 64 * 4),
        ("pred[]", 1),
        ("s32[3,5]{1,0}", 60),
        ("f8e4m3fn[16]{0}", 16),
        ("u4[16]{0}", 8),
    ],
)
def test_bytes_of_types(text, size):
    (found,) = types_of(text)
    assert found.bytes == size


@pytest.mark.parametrize(
    ("text", "space"), [("f32[8]{0:T(128)}", 0), ("f32[8]{0:S(1)}", 1), ("f32[8]{0:T(128)S(3)}", 1)]
)
def test_memories(text, space):
    """The compiler for a v4 has another number for the memory on the chip."""
    (found,) = types_of(text)
    assert found.space == space


def test_no_step():
    with pytest.raises(ValueError, match="no loop over steps"):
        _ = CompiledText("ENTRY %main (x: f32[]) -> f32[] {\n  ROOT %x = f32[] parameter(0)\n}\n").step


def test_on_cpu(loops_here):
    """Loops like those of a sweep, compiled for this CPU: four products and what is between them."""
    assert loops_here.kernels > 3
    assert loops_here.collectives == {}
    assert loops_here.open_loops == 0


@pytest.fixture(scope="module")
def loops_here():
    import jax.numpy as jnp
    from jax import jit, lax

    def steps(x, chunks, end):
        def chunk(_, x):
            return lax.fori_loop(0, end, lambda t, x: jnp.tanh(x @ x) @ x + jnp.sin(x @ x), x)

        return lax.fori_loop(0, chunks, chunk, x)

    return CompiledText(jit(steps).lower(jnp.ones((32, 32)), 1, 1).compile().as_text()).step
