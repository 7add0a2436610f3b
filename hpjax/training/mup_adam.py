"""AdamW whose epsilon goes with the size that gradients have under μP, at each width and depth.

N. Dey et al., "Don't be lazy: CompleteP enables compute-efficient deep transformers", 2025, arXiv 2505.01618, Table 1.
"""

from collections.abc import Mapping
from fnmatch import fnmatch
from typing import Any

import jax
import optax

from hpjax.core.errors import InputError, check_float
from hpjax.engine.state_tree import KeyPath, names_of
from hpjax.optim.closures import functions_in

# The extra argument, as Optax calls such, by which ``supervised`` gives the sizes: path of a parameter to its number.
SCALES = "gradient_scales"


def adamw(
    learning_rate: Any,
    b1: Any = 0.9,
    b2: Any = 0.999,
    eps: Any = 1e-8,
    weight_decay: Any = 1e-4,
    blocks: str | None = None,
    branch: float = 1.0,
) -> optax.GradientTransformationExtraArgs:
    """Returns ``optax.adamw`` with an epsilon of its own for each parameter: that of CompleteP's Table 1.

    N. Dey et al., "Don't be lazy: CompleteP enables compute-efficient deep transformers", 2025, arXiv 2505.01618.

    Under μP a gradient is 1/m of what it is in the base model, m times as narrow, and in residual blocks
    ``hpx.mup.residual(depth, base_depth)`` of that. An epsilon that stays damps the steps of large models. Here it is
    multiplied by the same numbers, by giving Adam the gradient divided by them, which changes nothing else in it. Other
    transformations of a chain see gradients as they are. At the base width and depth, and without μP, it is
    ``optax.adamw``. The last layer, which holds its multiplier 1/m, has gradients that do not depend on the width.

    Args:
      learning_rate, b1, b2, eps, weight_decay: as of ``optax.adamw``; each may be traced.
      blocks: which parameters are those of residual blocks, a pattern of their names, ``"block_*"``.
      branch: what multiplies the residual branches, ``hpx.mup.residual(depth, base_depth)``.

    Raises:
      InputError: ``branch`` is no number above 0 or lacks ``blocks``, or no parameter has such a name.

    Example:
      >>> program = hpx.supervised(
      ...     model=lambda h: nn.Sequential([nn.Dense(h.width), nn.relu, nn.Dense(10)]),
      ...     optimizer=lambda h: optax.chain(optax.clip_by_global_norm(1.0), hpx.mup.adamw(h.learning_rate)),
      ...     mup=hpx.mup.MuP({"width": 32}),
      ...     loss=optax.softmax_cross_entropy_with_integer_labels, data=hpx.data.digits(), batch_size=64, steps=10)
    """
    if not check_float("mup.adamw.branch", branch, 0):
        allowed = "must be above 0"
        raise InputError("mup.adamw.branch", branch, allowed, "Write branch=hpx.mup.residual(depth, base_depth).")
    if blocks is None and branch != 1:
        allowed = "needs blocks, the names of the parameters that it is about"
        raise InputError("mup.adamw.branch", branch, allowed, 'Write blocks="block_*".')
    return optax.chain(
        _with_own_epsilon(optax.scale_by_adam(b1, b2, eps), blocks, branch),
        optax.add_decayed_weights(weight_decay),
        optax.scale_by_learning_rate(learning_rate),
    )


def reads_scales(optimizer: Any) -> bool:
    """Returns whether an optimizer has ``adamw`` in it."""
    return any(
        function.__module__ == __name__ and function.__qualname__.startswith(_with_own_epsilon.__name__)
        for function in functions_in(optimizer)
    )


def _with_own_epsilon(
    adam: optax.GradientTransformation, blocks: str | None, branch: float
) -> optax.GradientTransformationExtraArgs:
    def init(params: Any) -> Any:
        names = ["/".join(map(str, names_of(path))) for path, _ in jax.tree_util.tree_leaves_with_path(params)]
        if blocks is not None and not any(fnmatch(name, blocks) for name in names):
            allowed = f"must match parameters; there are {', '.join(names[:8])}"
            raise InputError("mup.adamw.blocks", blocks, allowed, 'Write blocks="block_*".')
        return adam.init(params)

    def update(
        gradients: Any,
        state: Any,
        params: Any = None,
        *,
        gradient_scales: Mapping[KeyPath, Any] | None = None,
        **_: Any,
    ) -> tuple[Any, Any]:
        def divided(path: Any, gradient: Any) -> Any:
            name = names_of(path)
            scale = 1.0 if gradient_scales is None else gradient_scales[name]
            if blocks is not None and fnmatch("/".join(map(str, name)), blocks):
                scale = scale * branch
            # Untouched, not divided by 1, so that it is Optax's to the bit.
            return gradient if isinstance(scale, float) and scale == 1 else (gradient / scale).astype(gradient.dtype)

        updated: tuple[Any, Any] = adam.update(jax.tree_util.tree_map_with_path(divided, gradients), state, params)
        return updated

    return optax.GradientTransformationExtraArgs(init, update)
