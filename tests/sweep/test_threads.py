"""Sweeps that are planned in several threads at the same time are planned as each would be alone."""

from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from threading import Barrier, BrokenBarrierError

import jax.numpy as jnp
import pytest

import hpjax as hpx
from hpjax.core.bounds import check_bounds, collecting
from hpjax.core.hparams import Hparams, reading
from hpjax.sweep.planning.planner import plan_first_round


def planned(reads, high, meet=lambda: None):
    """What is planned of a program that reads some hyperparameters, or the error instead; it meets the other thread
    before and after it reads them.
    """

    def init(key, h):
        meet()
        for name in reads:
            h[name]
        if "share" in reads:
            hpx.nn.Dropout(h.share)
        meet()
        return jnp.zeros(())

    def step(key, w, batch, h):
        return w - h.rate * (w - 1), {"loss": (w - 1) ** 2}

    program = hpx.Program(init, step, lambda key, w, split, h: {"loss": (w - 1) ** 2}, steps=4)
    space = hpx.Space(rate=hpx.LogUniform(1e-3, 0.4), kind=hpx.Choice("a", "b"), share=hpx.Uniform(0, high))
    try:
        # Not by Sweep.plan(), which below Python 3.12 lets one thread in at a time: it is behind a cached_property.
        plan = plan_first_round(hpx.Sweep(program, space, trials=8).spec)
    except hpx.InputError as error:
        return str(error)
    return (
        {verdict.name: verdict for verdict in plan.verdicts},
        plan.hints,
        [(group.static, group.trials) for group in plan.groups],
    )


def at_once(first, second):
    """What two functions give that run in two threads, each of which has a barrier for both to meet at."""
    barrier = Barrier(2, timeout=5)

    def meet():
        with suppress(BrokenBarrierError):  # the other thread is done
            barrier.wait()

    with ThreadPoolExecutor(2) as threads:
        runs = [threads.submit(run, meet) for run in (first, second)]
        return [run.result() for run in runs]


@pytest.mark.parametrize("high", [1, 2])
def test_plans_do_not_mix(high):
    few, all_of_them = ((), 1), (("kind", "share"), high)
    alone = [planned(*few), planned(*all_of_them)]
    # Sanity: the programs differ in what would mix.
    assert alone[0][0]["kind"].reason == "the program never reads it"
    if high == 1:
        assert alone[1][0]["kind"].reason != "the program never reads it"
    else:
        assert "Dropout.rate" in alone[1]
    together = at_once(lambda meet: planned(*few, meet), lambda meet: planned(*all_of_them, meet))
    assert together == alone


def test_reads_and_checks_are_those_of_the_own_thread():
    def collected(name):
        def run(meet):
            with reading() as read, collecting() as checks:
                meet()
                _ = Hparams({name: 1})[name]
                check_bounds(name, 1, 0)
                meet()
            return list(read), [check.field for check in checks]

        return run

    assert at_once(collected("a"), collected("b")) == [(["a"], ["a"]), (["b"], ["b"])]


def test_blocks_inside_each_other_all_collect():
    with collecting() as outer:
        with collecting() as inner:
            check_bounds("a", 1, 0)
        check_bounds("b", 1, 0)
    assert [check.field for check in inner] == ["a"]
    assert [check.field for check in outer] == ["a", "b"]
