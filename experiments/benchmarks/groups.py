"""Ten widths: one hpjax process, or ten scripts one after the other; whole processes.

python groups.py sweep|WIDTH ARRAYS.npz

prints the validation loss of every trial.
"""

import json
import subprocess
import sys
import tempfile
from pathlib import Path

import mlp
import numpy as np
from worker import Prepared

WIDTHS = tuple(range(16, 176, 16))
sweep = mlp.of(64, batch=64, steps=300)


def ours(workload, arrays):
    """Trains all widths in one process."""
    return _processes(arrays, ["sweep"])


def scripts(workload, arrays):
    """Trains each width in a process of its own, all of its trials in one jit(vmap(scan))."""
    return _processes(arrays, list(map(str, WIDTHS)))


def _processes(arrays, arguments):
    folder = tempfile.TemporaryDirectory()
    path = Path(folder.name) / "arrays.npz"
    np.savez(path, **arrays)

    def run(folder=folder):  # which is there as long as this function
        losses = []
        for argument in arguments:
            command = [sys.executable, __file__, argument, str(path)]
            losses += json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)
        return losses

    return Prepared(run, note=f"{len(arguments)} process{'es' * (len(arguments) > 1)}", warm=False)


def inside(workload, arrays):
    """Trains all widths in this process."""
    from ours import planned

    whole = sweep_of(arrays)
    return planned(whole, lambda: whole.run(progress=False).last("valid/loss")[:, 0])


def sweep_of(arrays):
    """Returns the sweep of all widths as a user writes it."""
    return varied(sweep, arrays, lambda h: mlp.model(h.hidden), hidden=WIDTHS)


def varied(workload, arrays, model, eval_every=None, **setting):
    """Returns the sweep of a workload with the listed points for each value of a hyperparameter of its model."""
    from ours import listed, program_of, ranges

    import hpjax as hpx

    program = program_of(workload, arrays, model, eval_every)
    ((name, values),) = setting.items()
    space = hpx.Space(**{name: hpx.Choice(*values)}, **ranges(workload))
    sampler = hpx.Manual([{name: value, **point} for value in values for point in listed(arrays)])
    return hpx.Sweep(program, space, sampler=sampler, seed=0)


def train_one(hidden, arrays):
    """Trains one width, as one of the ten scripts does."""
    import jax
    import rivals

    train, _ = rivals.trainer(mlp.of(hidden, sweep.batch, sweep.steps))
    return jax.jit(jax.vmap(train, in_axes=(0, None)))(*rivals.given(arrays))


def main():
    what, path = sys.argv[1:]
    with np.load(path) as archive:
        arrays = dict(archive)
    if what == "sweep":
        losses = sweep_of(arrays).run(progress=False).last("valid/loss")[:, 0]
    else:
        losses = train_one(int(what), arrays)
    print(json.dumps(np.asarray(losses, float).tolist()))


if __name__ == "__main__":
    main()
