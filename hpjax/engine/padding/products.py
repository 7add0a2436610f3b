"""Rules of matrix products and convolutions on padded values. Pure."""

from typing import Any

import numpy as np

from hpjax.engine.padding.values import Fill, NotPaddableError, Padded, filled, varies
from hpjax.engine.padding.walk import Equation, Rule


def _product(equation: Equation) -> list[Padded]:
    """Evaluates a matrix product: along padded axes that are summed over, the terms of the padding are 0."""
    (left, right), (sizes,) = equation.given, equation.sizes
    (summed, _), _ = equation.param("dimension_numbers")
    if any(varies(left.sizes[axis]) for axis in summed):
        left, right = _vanishing(left, right, equation.program)
    (array,) = equation.bind(left.array, right.array)
    return [Padded(array, sizes, _fill(left, right, summed, equation.param("dimension_numbers")[0][1]))]


def _vanishing(left: Padded, right: Padded, program: Any) -> tuple[Padded, Padded]:
    """Returns the operands of a product, whose terms in the padding are 0."""
    if left.fill != 0 and right.fill != 0:
        # The one of which more is known already: padding that holds NaN would make NaN of the zeros of the other.
        if left.fill is Fill.UNKNOWN:
            left = filled(left, 0, program)
        else:
            right = filled(right, 0, program)
    left = left if _finite(left) else filled(left, 0, program)
    right = right if _finite(right) else filled(right, 0, program)
    return left, right


def _finite(x: Padded) -> bool:
    return x.fill is Fill.COPIES or (not isinstance(x.fill, Fill) and bool(np.isfinite(x.fill)))


def _fill(left: Padded, right: Padded, summed_left: Any, summed_right: Any) -> Any:
    """Returns the fill of a product: 0 where each operand that has padding of its own has zeros there."""
    sides = ((left, summed_left), (right, summed_right))
    free = [x for x, summed in sides if any(varies(own) for axis, own in enumerate(x.sizes) if axis not in summed)]
    if all(x.fill == 0 for x in free):
        return 0 if free else Fill.COPIES
    return Fill.UNKNOWN


def _convolution(equation: Equation) -> list[Padded]:
    """Evaluates a convolution whose numbers of channels differ."""
    (image, kernel), (sizes,) = equation.given, equation.sizes
    numbers = equation.param("dimension_numbers")
    (batch, features), (outputs, inputs) = numbers.lhs_spec[:2], numbers.rhs_spec[:2]
    may = {(0, batch), (0, features), (1, outputs), (1, inputs)}
    for number, x in enumerate((image, kernel)):
        if any(varies(own) and (number, axis) not in may for axis, own in enumerate(x.sizes)):
            raise NotPaddableError("a convolution has images or windows whose sizes differ")
    if equation.padded and (equation.param("feature_group_count") > 1 or equation.param("batch_group_count") > 1):
        raise NotPaddableError("a convolution in groups has channels whose numbers differ")
    if varies(image.sizes[features]):
        image, kernel = _vanishing(image, kernel, equation.program)
    (array,) = equation.bind(image.array, kernel.array)
    return [Padded(array, sizes, _fill(image, kernel, (features,), (inputs,)))]


RULES: dict[str, Rule] = {"conv_general_dilated": _convolution, "dot_general": _product}
