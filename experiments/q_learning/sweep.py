"""How much should tabular Q-learning explore, and what does it gain by exploring less and less?

python experiments/q_learning/sweep.py [--out FOLDER] [--smoke]

The frozen lake of Gymnasium, 4×4 and slippery: a step goes where it should in one case of three, else aside; a hole or
the goal ends the walk, and only the goal has a reward. C. Watkins and P. Dayan, "Q-learning", 1992.
"""

import argparse
from dataclasses import replace
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from scipy import stats

import hpjax as hpx

LAKE = "SFFFFHFHFFFHHFFG"
SIDE, ACTIONS, DISCOUNT = 4, 4, 0.99
GOAL = LAKE.index("G")
ENDS = np.array([cell in "HG" for cell in LAKE])


def neighbours():
    """The cell at which one arrives, (cells, directions): left, down, right, up; who would leave the lake stays."""
    rows, columns = np.divmod(np.arange(SIDE**2), SIDE)
    down, right = np.array([0, 1, 0, -1]), np.array([-1, 0, 1, 0])
    return SIDE * (rows[:, None] + down).clip(0, SIDE - 1) + (columns[:, None] + right).clip(0, SIDE - 1)


NEXT = neighbours()
# The chance of each cell after a cell and an action; none after an end.
CHANCES = np.stack([np.eye(SIDE**2)[NEXT[:, [a - 1, a, (a + 1) % 4]]].mean(axis=1) for a in range(ACTIONS)], axis=1)
CHANCES[ENDS] = 0


def init(key, h):
    return {"q": jnp.zeros((SIDE**2, ACTIONS)), "cell": jnp.int32(0), "taken": jnp.int32(0)}


def step(key, state, batch, h):
    q, cell = state["q"], state["cell"]
    explore, choice, slip, *ties = jax.random.uniform(key, (3 + ACTIONS,))
    epsilon = h.epsilon * 2 ** (-state["taken"] / h.half_life)
    greedy = jnp.argmax(q[cell] + 1e-6 * jnp.stack(ties))
    action = jnp.where(explore < epsilon, (ACTIONS * choice).astype(int), greedy)
    after = jnp.asarray(NEXT)[cell, (action + (3 * slip).astype(int) - 1) % ACTIONS]
    reward, over = (after == GOAL).astype(float), jnp.asarray(ENDS)[after]
    error = reward + DISCOUNT * q[after].max() - q[cell, action]
    state = {
        "q": q.at[cell, action].add(h.learning_rate * error),
        "cell": jnp.where(over, 0, after).astype(jnp.int32),
        "taken": state["taken"] + 1,
    }
    return state, {"reward": reward, "walks": over.astype(float)}


def worth(actions, discount=DISCOUNT):
    """What walks from the first cell return in expectation: the sum over 2¹² steps, by doubling."""
    chances = jnp.asarray(CHANCES)[jnp.arange(SIDE**2), actions]
    values, moves = chances[:, GOAL], discount * chances
    for _ in range(12):
        values, moves = values + moves @ values, moves @ moves
    return values[0]


def evaluate(key, state, split, h):
    return {"return": worth(jnp.argmax(state["q"], axis=1))}


program = hpx.Program(init, step, evaluate, steps=20_000, eval_every=1_000)

space = hpx.Space(
    epsilon=hpx.LogUniform(0.01, 1.0, num=9),
    half_life=hpx.Choice(300.0, 1_000.0, 3_000.0, 10_000.0, float("inf")),
    learning_rate=hpx.LogUniform(0.01, 0.5, num=6),
)

sweep = hpx.Sweep(program, space, sampler=hpx.Grid(), replicates=64, objective=hpx.maximize("valid/return"))


def best_actions():
    """Those of the optimal policy, by value iteration."""
    values = np.zeros(SIDE**2)
    for _ in range(5_000):
        worths = CHANCES[:, :, GOAL] + DISCOUNT * CHANCES @ values
        values = worths.max(axis=1)
    return worths.argmax(axis=1)


def mean(values):
    """The mean over replicates, the last axis, and half the width of its interval of 95 %."""
    error = values.std(axis=-1, ddof=1) / values.shape[-1] ** 0.5
    return values.mean(axis=-1), stats.t.ppf(0.975, values.shape[-1] - 1) * error


def choose(values):
    """Which setting of (settings, …, replicates) is best in half of the replicates, and what the other half has there.

    Chosen and judged by the same replicates, the best of many settings would look better than it is.
    """
    seen, told = np.split(values, 2, axis=-1)
    best = np.unravel_index(seen.mean(axis=-1).argmax(), seen.shape[:-1])
    return best, told[best]


def draw(epsilons, half_lives, tables, curves, limits, path):
    """The scores against ε, a line a half-life; and successes during training, of the best with and without decay."""
    import matplotlib.pyplot as plt

    from hpjax import plot

    with plt.rc_context(plot.STYLE):
        figure, panels = plt.subplots(1, 3, figsize=(10.2, 3.4), layout="constrained")
        for (name, table), limit, panel in zip(tables.items(), limits, panels, strict=False):
            for place, half_life in enumerate(half_lives):
                middle, wide = mean(table[:, place])
                constant = np.isinf(half_life)
                color = plot.RED if constant else plt.get_cmap("viridis")(place / len(half_lives))
                label = "constant ε" if constant else f"half-life {half_life:,.0f}"
                panel.errorbar(epsilons, middle, wide, fmt="o-", markersize=3, linewidth=1, color=color, label=label)
            panel.set(xscale="log", xlabel="ε at the start", ylabel=name)
            panel.axhline(limit, color=plot.GREY, linestyle="--", linewidth=1, label="the optimal policy")
        for (name, (steps, values)), color in zip(curves.items(), (plot.RED, plot.BLUE), strict=True):
            middle, wide = mean(values)
            panels[2].plot(steps, middle, color=color, label=f"best {name} ε")
            panels[2].fill_between(steps, middle - wide, middle + wide, color=color, alpha=0.2, linewidth=0)
        panels[2].axhline(limits[1], color=plot.GREY, linestyle="--", linewidth=1)
        panels[2].set(xlabel="step", ylabel=SUCCESS)
        panels[2].xaxis.set_major_formatter("{x:,.0f}")
        panels[2].legend(frameon=False, fontsize=8, loc="lower right")
        for panel, limit in zip(panels, (*limits, limits[1]), strict=True):
            panel.set_ylim(0, 1.08 * limit)
        figure.legend(
            *panels[0].get_legend_handles_labels(), loc="outside upper left", ncols=6, frameon=False, fontsize=8
        )
        figure.savefig(path, dpi=150)


GREEDY, SUCCESS = "return of the greedy policy", "walks that reach the goal"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("runs/q_learning"), help="where run and figure go")
    parser.add_argument("--smoke", action="store_true", help="few steps and replicates")
    given = parser.parse_args()
    hpx.setup()
    small = replace(sweep, program=replace(program, steps=2_000, eval_every=200), replicates=8)
    result = (small if given.smoke else sweep).run(given.out / ("smoke" if given.smoke else "run"))

    (epsilons, half_lives, rates), trials = result.grid(*space.names)
    names = "step", "valid/return", "train/reward", "train/walks"
    steps, returns, reward, walks = (result.curves(name)[trials] for name in names)
    scores = {GREEDY: returns[..., -1], SUCCESS: reward.sum(axis=-1) / walks.sum(axis=-1)}

    actions = best_actions()
    limits = float(worth(actions)), float(worth(actions, discount=1.0))
    print(f"\nthe optimal policy returns {limits[0]:.4f} and reaches the goal in {limits[1]:.1%} of walks\n")
    tables = {}
    for name, values in scores.items():
        tables[name] = np.array([[choose(settings)[1] for settings in row] for row in values])
        print(f"{name}, by ε at the start and half-life of ε, each with its best learning rate")
        print("      ε" + "".join(f"{half_life:>17,.0f}" for half_life in half_lives))
        for epsilon, row in zip(epsilons, tables[name], strict=True):
            print(f"{epsilon:7.3f}" + "".join("{:9.3f} ± {:.3f}".format(*mean(cell)) for cell in row))
        print()

    kinds = {"constant": slice(-1, None), "decaying": slice(-1)}
    curves = {}
    for score, values in scores.items():
        found = {}
        for kind, kept in kinds.items():
            best, found[kind] = choose(values[:, kept])
            point = (epsilons[best[0]], half_lives[kept][best[1]], rates[best[2]])
            told = ", ".join(f"{name} {value:,g}" for name, value in zip(space.names, point, strict=True))
            print("{}, {} ε: {:.3f} ± {:.3f} at {}".format(score, kind, *mean(found[kind]), told))
            if score == SUCCESS:
                half = slice(steps.shape[-1] // 2, None)
                part = [each[:, kept][best][half].T for each in (steps, reward, walks)]
                curves[kind] = part[0][:, 0], part[1] / np.maximum(part[2], 1e-9)
        print("decay gains {:+.3f} ± {:.3f}".format(*mean(found["decaying"] - found["constant"])))
    draw(epsilons, half_lives, tables, curves, limits, given.out / "q_learning.png")
    print(given.out / "q_learning.png")


if __name__ == "__main__":
    main()
