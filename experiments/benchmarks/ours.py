"""What a user writes with hpjax, which chooses the width, the devices and all else by itself."""

import time

from worker import Planned, Prepared, cores, now
from workload import points


def program_of(workload, arrays, model, eval_every=None, **trained):
    """Returns the program of a workload, with a model of its own; ``trained`` are more arguments of ``supervised``."""
    import jax
    import optax

    import hpjax as hpx

    if jax.config.jax_platforms == "cpu":
        jax.config.update("jax_num_cpu_devices", cores())
    valid = (arrays["valid_x"], arrays["valid_y"])
    data = hpx.data.from_arrays(arrays["x"], arrays["y"], valid=valid, test=valid, name="benchmark")
    return hpx.supervised(
        model=model,
        optimizer=workload.optimizer,
        loss=optax.softmax_cross_entropy_with_integer_labels,
        data=data,
        batch_size=workload.batch,
        steps=workload.steps,
        eval_every=eval_every,
        **trained,
    )


def ranges(workload):
    """Returns the domains of a workload's hyperparameters, by their names."""
    import hpjax as hpx

    return {
        name: (hpx.LogUniform if name in workload.logarithmic else hpx.Uniform)(*limits)
        for name, limits in workload.ranges.items()
    }


def listed(arrays):
    """Returns the points that all competitors train."""
    own = points(arrays)
    return [dict(zip(own, map(float, values), strict=True)) for values in zip(*own.values(), strict=True)]


def sweep_of(workload, arrays, eval_every=None, trained=None, **settings):
    """Returns the sweep of a workload, over the listed points; ``trained`` are more arguments of ``supervised``."""
    import hpjax as hpx

    program = program_of(workload, arrays, workload.model(), eval_every, **trained or {})
    sampler = hpx.Manual(listed(arrays))
    objective = hpx.minimize("valid/loss")
    return hpx.Sweep(program, hpx.Space(**ranges(workload)), sampler=sampler, objective=objective, seed=0, **settings)


def engine_of(sweep):
    """Returns the plan of a sweep, its programs, its only group's lanes, and what these have compiled."""
    from hpjax.sweep.planning.programs import GroupPrograms

    plan, programs = sweep.plan(), GroupPrograms.of(sweep.spec)
    (group,) = plan.own_groups
    members = programs.lane_table(plan, group, range(len(plan.points)), dict(enumerate(plan.points)))
    return plan, programs, members, programs.compile(plan, group.number, members.h)


def planned(whole, run):
    """Runs a sweep once; returns ``run``, and beside it what the plan said and what the run waited."""
    plan = whole.plan()
    begun = time.perf_counter()
    events = whole.events()
    # The plan itself, for which its reader has waited already, is not in it; the check of padded programs is.
    waited = [time.perf_counter() - begun] if plan.paddings else []
    waited += [event.seconds for event in events if event.kind == "compiled"]
    first = time.perf_counter() - begun
    widths = ", ".join(map(str, sorted(set(whole.plan().widths))))
    said = Planned(plan.compile_seconds, plan.run_seconds, sum(waited))
    return Prepared(run, first=first, note=f"width {widths}", planned=said)


def sweep(workload, arrays):
    """Runs a sweep in memory; what the first run compiles is kept for those that follow."""
    whole = sweep_of(workload, arrays)
    return planned(whole, lambda: whole.run(progress=False).last("valid/loss")[:, 0])


def loaded(workload, arrays):
    """Prepares the same while another process keeps each core busy; they end with this one."""
    import atexit
    import subprocess
    import sys

    for _ in range(cores()):
        atexit.register(subprocess.Popen([sys.executable, "-c", "while True: pass"]).kill)
    return sweep(workload, arrays)


def recorded(workload, arrays):
    """Runs a sweep with a directory, which streams the results to the disk."""
    import tempfile
    from pathlib import Path

    whole = sweep_of(workload, arrays)

    def run():
        with tempfile.TemporaryDirectory() as folder:
            begun = now()
            result = whole.run(Path(folder) / "run", progress=False)
            spent = now().since(begun)
            return result.last("valid/loss")[:, 0], spent

    return planned(whole, run)
