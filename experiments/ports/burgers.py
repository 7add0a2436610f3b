"""Burgers' equation, u_t + u u_x = ν u_xx with ν = 0.01 / π, from u(0, x) = -sin πx, with u = 0 at x = ±1."""

import numpy as np

NU = 0.01 / np.pi


def solution(t, x, nodes=100):
    """Returns u(t, x), float (points,), by the transformation of Cole and Hopf and Gauss's quadrature."""
    z, w = np.polynomial.hermite.hermgauss(nodes)
    s = np.pi * (x[:, None] - np.sqrt(4 * NU * t[:, None]) * z)
    w = w * np.exp(-np.cos(s) / (2 * np.pi * NU))
    return -(np.sin(s) * w).sum(1) / w.sum(1)


def collocation(interior=1_024, known=256):
    """Returns points (t, x), of which some lie where the equation begins or ends, and so have a known u.

    Returns:
      Points (points, 2), and of each whether u is known, and u where it is.
    """
    rng = np.random.default_rng(0)
    z = np.stack([rng.uniform(0, 1, interior + 2 * known), rng.uniform(-1, 1, interior + 2 * known)], axis=1)
    z[:known, 0], z[known : 2 * known, 1] = 0, rng.choice([-1, 1], known)
    u = np.where(z[:, 0] == 0, -np.sin(np.pi * z[:, 1]), 0)
    return z, {"known": np.arange(len(z)) < 2 * known, "u": u}


def grid():
    """Returns points (t, x) of a grid, and the solution there, in the form of ``collocation``."""
    z = np.stack(np.meshgrid(np.linspace(0, 1, 21), np.linspace(-1, 1, 101), indexing="ij"), axis=-1).reshape(-1, 2)
    return z, {"known": np.ones(len(z), bool), "u": solution(*z.T)}
