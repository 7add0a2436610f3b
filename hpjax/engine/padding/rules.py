"""Rules: how each operation is evaluated on padded values, so that its result is that of the small ones. Pure."""

from jax.extend import core

from hpjax.engine.padding import control, indexing, products, reductions, shaping
from hpjax.engine.padding.values import NotPaddableError, Padded, fill_of
from hpjax.engine.padding.walk import Equation, Rule, unpadded


def rule_of(equation: Equation) -> Rule:
    """Returns the rule that evaluates an operation.

    Raises:
      NotPaddableError: there is none.
    """
    name = equation.name
    if name in ELEMENTWISE or name in RULES:
        return RULES.get(name, _elementwise)
    if (inner := control.RULES.get(name)) is not None:
        return lambda equation: inner(equation, rule_of)
    if not equation.padded:
        return unpadded_with_functions if list(core.jaxprs_in_params(equation.params[0])) else unpadded
    raise NotPaddableError(f"{name} has sizes that differ")


def unpadded_with_functions(equation: Equation) -> list[Padded]:
    """Evaluates an operation without padding that holds functions, which must be the same in each program."""
    inner = {str(list(core.jaxprs_in_params(params))) for params in equation.params}
    if len(inner) > 1:
        raise NotPaddableError(f"{equation.name} has different functions")
    found = equation.bind(*(x.array for x in equation.given), besides=list(equation.params[0]))
    return [Padded(array, sizes) for array, sizes in zip(found, equation.sizes, strict=True)]


def _elementwise(equation: Equation) -> list[Padded]:
    given = equation.given
    for x in given:
        for own, out in zip(x.sizes, equation.sizes[0], strict=False):
            if own != out and set(own) != {1}:
                raise NotPaddableError(f"{equation.name} has sizes that are 1 in some only")
    found = equation.bind(*(x.array for x in given))
    return [
        Padded(array, sizes, fill_of(equation.name, given, equation.params[0], dtype))
        for array, sizes, dtype in zip(found, equation.sizes, equation.dtypes, strict=True)
    ]


def _barrier(equation: Equation) -> list[Padded]:
    found = equation.bind(*(x.array for x in equation.given))
    return [x._replace(array=array) for x, array in zip(equation.given, found, strict=True)]


_NAMES = """
abs acos acosh add add_any and asin asinh atan atan2 atanh bessel_i0e bessel_i1e bitcast_convert_type cbrt ceil
clamp clz complex conj convert_element_type copy copy_p cos cosh digamma div eq erf erf_inv erfc exp exp2 expm1
floor ge gt igamma igamma_grad_a igammac imag integer_pow is_finite le lgamma log log1p log2 logistic lt max min
mul mulhi ne neg nextafter not one_minus_square or polygamma population_count pow real reduce_precision
regularized_incomplete_beta rem round rsqrt select_n shift_left shift_right_arithmetic shift_right_logical sign
sin sinh sqrt square stop_gradient sub tan tanh tie xor zeta
"""
ELEMENTWISE = frozenset(_NAMES.split())

RULES: dict[str, Rule] = {
    **shaping.RULES,
    **reductions.RULES,
    **indexing.RULES,
    **products.RULES,
    "optimization_barrier": _barrier,
}
