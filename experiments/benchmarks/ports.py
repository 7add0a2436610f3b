"""Training that users bring: the sweeps of experiments/ports, and two of them as ``jit(vmap(scan))`` of the same."""

import sys
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path

from ours import planned
from worker import cores

FOLDER = Path(__file__).parents[1] / "ports"


@dataclass(frozen=True)
class Port:
    """A port by its name; a workload that has its own data and hyperparameters."""

    name: str

    def arrays(self, trials):
        return {}

    def module(self):
        import jax

        if jax.config.jax_platforms == "cpu":
            jax.config.update("jax_num_cpu_devices", cores())
        if str(FOLDER) not in sys.path:
            sys.path.append(str(FOLDER))
        return import_module(self.name)

    def sweep(self):
        return self.module().sweep

    def plain(self):
        """Returns a jitted function of all trials, and its arguments."""
        import jax
        import jax.numpy as jnp

        module, sweep = self.module(), self.sweep()
        # Not of the plan, which would have traced what is measured here, too.
        listed = [*map(sweep.space.canonical, sweep.sampler.ask(sweep.space, [], sweep.trials, sweep.seed))]
        h = {name: jnp.asarray([point[name] for point in listed]) for name in listed[0]}
        program, key = sweep.program, jax.random.key(0)
        if self.name == "ppo":  # all of whose training is a function
            return jax.jit(jax.vmap(module.train, in_axes=(None, 0))), (key, h)
        data = jax.tree.map(jnp.asarray, (program.data.train, program.data.valid))
        return jax.jit(jax.vmap(looped(program), in_axes=(None, 0, None))), (key, h, data)


def looped(program):
    """Returns ``train(key, h, data)``: a program's functions in two scans, evaluations around steps."""
    import jax
    import jax.numpy as jnp
    from jax import lax

    import hpjax as hpx

    def train(key, h, data):
        h = hpx.Hparams(h)

        def step(state, t):
            batch = program.batch(key, t, data[0], h)
            return program.step(jax.random.fold_in(key, t), state, batch, h)

        def evaluated(state, begin):
            state, metrics = lax.scan(step, state, begin + jnp.arange(program.eval_every))
            means = jax.tree.map(jnp.mean, metrics)
            return state, (means, program.evaluate(jax.random.fold_in(key, begin), state, data[1], h))

        begins = jnp.arange(0, program.steps, program.eval_every)
        return lax.scan(evaluated, program.init(key, h), begins)[1]

    return train


def sweep(workload, arrays):
    """Runs the sweep of a port in memory."""
    whole = workload.sweep()

    def run():
        whole.run(progress=False)

    return planned(whole, run)


mnist, vae, nanodo, gan, ppo, pinn, equinox_rnn, grokking = map(
    Port, ("mnist", "vae", "nanodo", "gan", "ppo", "pinn", "equinox_rnn", "grokking")
)
