"""The Hessian of a loss, of which only products with vectors are ever computed: its largest eigenvalue and its trace.

Vectors are pytrees like the parameters. A complex parameter counts as two real ones, its real and its imaginary part.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from hpjax.core.arrays import at_least_float32

Vector = Any
# Returns the Hessian times a vector.
Product = Callable[[Vector], Vector]

# Products with vectors that a largest eigenvalue takes. On MLPs for digits the estimate is within 2 % after 10 and
# within 1e-5 after 20, where power iterations are off by up to 2 %.
ITERATIONS = 20
# And those of a trace, which is off by about a tenth then.
DRAWS = 16
# Of an interval that is not many times the eigenvalue; float32 has 24 bits.
HALVINGS = 30


def hessian_product(function: Callable[[Any], jax.Array], params: Any, vector: Vector) -> Vector:
    """Returns the Hessian of a function times a vector, by forward over reverse differentiation.

    B. A. Pearlmutter, "Fast Exact Multiplication by the Hessian", Neural Computation 6, 1994.

    Args:
      function: takes parameters and returns a real number ().
      params: the point, a pytree of floating-point arrays.
      vector: a pytree like it.
    """
    product = jax.jvp(jax.grad(function), (params,), (vector,))[1]
    # JAX's gradient of a complex parameter is the conjugate of the direction of ascent.
    return jax.tree.map(jnp.conj, product)


def largest_eigenvalue(product: Product, like: Any, key: jax.Array) -> jax.Array:
    """Returns the largest eigenvalue, which is negative where all are, by Lanczos iterations from a random vector.

    They need as many products as power iterations, are far closer after few where the largest eigenvalues lie close
    together, as those of networks do, and do not mistake a large negative eigenvalue for the largest. Up to rounding
    the estimate is never too high (G. H. Golub and C. F. Van Loan, "Matrix Computations", 4th edition, 2013, section
    10.1). The vectors are not orthogonalized anew, which brings copies of eigenvalues, and no others.

    Args:
      product: the Hessian.
      like: a pytree of arrays like the parameters.
      key: the key that the start vector is drawn with, shape ().

    Returns:
      Float (), float32 at least.
    """
    drawn = signs(key, like)
    start = _scaled(drawn, lax.rsqrt(_dot(drawn, drawn)))
    zero = jnp.zeros_like(_dot(start, start))

    def iterate(carry: tuple[Vector, Vector, jax.Array], _: None) -> tuple[Any, Any]:
        vector, before, beside = carry
        image = product(vector)
        diagonal = _dot(vector, image)
        # Numbers are float64 under ``jax_enable_x64``, and vectors as wide as the parameters.
        rest = jax.tree.map(lambda w, v, b: (w - diagonal * v - beside * b).astype(v.dtype), image, vector, before)
        norm = jnp.sqrt(_dot(rest, rest))
        # Where nothing is left, the vectors so far span all that the Hessian makes of the first one.
        after = _scaled(rest, jnp.where(norm > 0, 1 / jnp.where(norm > 0, norm, 1), 0))
        return (after, vector, norm), (diagonal, norm, _dot(vector, vector) > 0)

    first = start, jax.tree.map(jnp.zeros_like, start), zero
    _, (diagonal, beside, used) = lax.scan(iterate, first, None, length=ITERATIONS)
    # The first number of the diagonal lies between the eigenvalues, so that it adds none.
    return largest_of_tridiagonal(jnp.where(used, diagonal, diagonal[0]), beside[:-1])


def largest_of_tridiagonal(diagonal: jax.Array, beside: jax.Array) -> jax.Array:
    """Returns the largest eigenvalue of a symmetric tridiagonal matrix, by bisection.

    A number is above all eigenvalues where the matrix less the number has only negative pivots (Golub and Van Loan,
    2013, section 8.4). LAPACK, which also could, is called on the host, and lanes would wait for each other there.

    Args:
      diagonal: float (n,).
      beside: float (n - 1,).

    Returns:
      Float ().
    """
    both = jnp.pad(jnp.abs(beside), 1)
    squares, tiny = beside**2, float(np.finfo(diagonal.dtype).tiny)

    def halve(_: int, ends: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        low, high = ends
        middle = low + (high - low) / 2
        pivot = diagonal[0] - middle
        above = pivot < 0
        for i in range(1, len(diagonal)):
            pivot = diagonal[i] - middle - squares[i - 1] / jnp.where(pivot == 0, tiny, pivot)
            above &= pivot < 0
        return jnp.where(above, low, middle), jnp.where(above, middle, high)

    # No eigenvalue lies beyond the circles of Gershgorin, and the largest not below the diagonal.
    ends = jnp.max(diagonal), jnp.max(diagonal + both[:-1] + both[1:])
    low, high = lax.fori_loop(0, HALVINGS, halve, ends)
    return jnp.asarray(low + (high - low) / 2)


def trace(product: Product, like: Any, key: jax.Array) -> jax.Array:
    """Returns an unbiased estimate of the trace, from 16 random vectors of signs.

    Its standard deviation is √(2 / 16) times the Frobenius norm of the Hessian without its diagonal, 0 for a diagonal
    one. M. F. Hutchinson, "A Stochastic Estimator of the Trace of the Influence Matrix for Laplacian Smoothing
    Splines", 1990.

    Args:
      product, like, key: as for ``largest_eigenvalue``.

    Returns:
      Float (), float32 at least.
    """

    def add(total: jax.Array, i: jax.Array) -> tuple[jax.Array, None]:
        vector = signs(jax.random.fold_in(key, i), like)
        return total + _dot(vector, product(vector)), None

    first = jnp.zeros_like(jax.eval_shape(_dot, like, like))
    return lax.scan(add, first, jnp.arange(DRAWS))[0] / DRAWS


def signs(key: jax.Array, like: Any) -> Vector:
    """Returns a vector of independent signs, -1 or 1, float32 at least."""
    leaves, tree = jax.tree.flatten(like)

    def drawn(i: int, leaf: jax.Array) -> jax.Array:
        own, dtype = jax.random.fold_in(key, i), at_least_float32(leaf).dtype
        if not jnp.issubdtype(dtype, jnp.complexfloating):
            return jax.random.rademacher(own, leaf.shape, dtype)
        real, imaginary = jax.random.rademacher(own, (2, *leaf.shape), leaf.real.dtype)
        return lax.complex(real, imaginary)

    return jax.tree.unflatten(tree, [drawn(i, leaf) for i, leaf in enumerate(leaves)])


def _scaled(vector: Vector, by: jax.Array) -> Vector:
    return jax.tree.map(lambda a: (a * by).astype(a.dtype), vector)


def _dot(a: Vector, b: Vector) -> jax.Array:
    """Returns the inner product of two vectors, float (), float32 at least."""
    pairs = zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True)
    return sum((jnp.sum(at_least_float32((x * jnp.conj(y)).real)) for x, y in pairs), start=jnp.zeros(()))
