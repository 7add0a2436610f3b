"""The MLP sweep in PyTorch: all trials with torch.func, and one by one."""

import math
import time

import numpy as np
import torch
from mlp import HIDDEN
from torch import nn
from torch.func import functional_call, grad, stack_module_state, vmap
from worker import Prepared, cores
from workload import points


def mlp():
    """Returns the MLP with weights as Flax draws them, by LeCun's normal cut off at two deviations: losses agree."""
    model = nn.Sequential(
        nn.Linear(64, HIDDEN),
        nn.ReLU(),
        nn.Linear(HIDDEN, HIDDEN),
        nn.ReLU(),
        nn.Linear(HIDDEN, 10),
    )
    for layer in model[::2]:
        scale = layer.in_features**-0.5 / 0.87962566103423978
        nn.init.trunc_normal_(layer.weight, std=scale, a=-2 * scale, b=2 * scale)
        nn.init.zeros_(layer.bias)
    return model


def given(arrays):
    h = {name: torch.from_numpy(values) for name, values in points(arrays).items()}
    x, valid_x = (torch.from_numpy(arrays[name]) for name in ("x", "valid_x"))
    y, valid_y = (torch.from_numpy(arrays[name]).long() for name in ("y", "valid_y"))
    return h, x, y, valid_x, valid_y


def vmapped(workload, arrays, trials=None, widths=(8, 32, 64, 256)):
    """Trains by ``vmap(grad)`` and SGD in place on stacked parameters, at the best of several widths.

    Of the first ``trials`` it trains whole chunks.
    """
    h, x, y, valid_x, valid_y = given(arrays)
    torch.manual_seed(0)
    model = mlp()
    start, _ = stack_module_state([model])
    total = len(h["momentum"])
    torch.set_num_threads(cores())

    def loss(params, x, y):
        return nn.functional.cross_entropy(functional_call(model, params, (x,)), y)

    gradients, losses = vmap(grad(loss), in_dims=(0, None, None)), vmap(loss, in_dims=(0, None, None))

    def chunk(own, steps=workload.steps):
        width = len(own["momentum"])
        params = {name: value.detach().expand(width, *value.shape[1:]).clone() for name, value in start.items()}
        moments = {name: torch.zeros_like(value) for name, value in params.items()}
        shaped = {
            name: {k: v.view(-1, *(1,) * (value.ndim - 1)) for k, v in own.items()} for name, value in params.items()
        }
        drawn = torch.randint(len(x), (steps, workload.batch))
        for batch in drawn:
            for name, g in gradients(params, x[batch], y[batch]).items():
                g.addcmul_(params[name], shaped[name]["weight_decay"])
                moments[name].mul_(shaped[name]["momentum"]).add_(g)
                params[name].addcmul_(moments[name], shaped[name]["learning_rate"], value=-1)
        return losses(params, valid_x, valid_y)

    @torch.no_grad()
    def run():
        parts = [{k: v[i : min(i + width, count)] for k, v in h.items()} for i in range(0, count, width)]
        return torch.cat([chunk(own) for own in parts]).numpy()

    def tried(width):
        """Measures the seconds a lane of a few steps."""
        own, laps = {k: v[:width] for k, v in h.items()}, []
        for _ in range(3):
            begun = time.perf_counter()
            with torch.no_grad():
                chunk(own, steps=20)
            laps.append(time.perf_counter() - begun)
        return min(laps) / width

    width = min((w for w in widths if w <= total), key=tried)
    count = min(total, -(-(trials or total) // width) * width)
    note = f"{count} of {total} trials timed, width {width}, the best of {', '.join(map(str, widths))}"
    return Prepared(run, count / total, note, chosen=list(range(count)))


def alone(workload, arrays, trials=None):
    """Trains one trial after the other by torch.optim.SGD: the best of its three ways, on one thread or all."""
    h, x, y, valid_x, valid_y = given(arrays)
    total = len(h["momentum"])
    chosen = np.linspace(0, total - 1, trials or total).astype(int).tolist()
    values = {name: value.tolist() for name, value in h.items()}

    def train(i, way, steps=workload.steps):
        torch.manual_seed(0)
        model = mlp()
        optimizer = torch.optim.SGD(
            model.parameters(),
            lr=values["learning_rate"][i],
            momentum=values["momentum"][i],
            weight_decay=values["weight_decay"][i],
            **way,
        )
        for batch in torch.randint(len(x), (steps, workload.batch)):
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(x[batch]), y[batch]).backward()
            optimizer.step()
        with torch.no_grad():
            return nn.functional.cross_entropy(model(valid_x), valid_y).item()

    ways = {"for-loop": {"foreach": False}, "foreach": {"foreach": True}, "fused": {"fused": True}}
    seconds = dict.fromkeys(((n, way) for n in sorted({1, cores()}) for way in ways), math.inf)
    for _ in range(3):  # in turns: on cores that others use, several threads may be slow for a moment
        for threads, way in seconds:
            torch.set_num_threads(threads)
            begun = time.perf_counter()
            train(0, ways[way], steps=50)
            seconds[threads, way] = min(seconds[threads, way], time.perf_counter() - begun)
    threads, way = min(seconds, key=seconds.get)
    torch.set_num_threads(threads)
    note = f"{len(chosen)} of {total} trials timed, threads: {threads}, SGD {way}"
    return Prepared(lambda: [train(i, ways[way]) for i in chosen], len(chosen) / total, note, chosen=chosen)
