"""What the devices that share a lane exchange in a step, counted in a compiled program.

It reads the text of the program, which JAX does not document to stay as it is (see ``hpjax.engine.hlo_text``).
Fallback: where it cannot be read, nothing is counted, and a warning tells once.
"""

from typing import Any, NamedTuple

import jax

from hpjax.core.fallback import warn_once
from hpjax.engine.hlo import CompiledText, Traffic
from hpjax.engine.sharding import DATA


class Exchanges(NamedTuple):
    """What the devices of a chunk of lanes exchange in a step.

    Attributes:
      times: how many times they exchange arrays.
      bytes: of these arrays.
    """

    times: int
    bytes: int

    @classmethod
    def of(cls, step: Traffic) -> "Exchanges":
        """Returns what they exchange by all that a step runs."""
        return cls(round(step.exchanges), round(step.exchanged))


def exchanges_of(compiled: Any, mesh: jax.sharding.Mesh) -> Exchanges | None:
    """Returns what the devices of a chunk of lanes exchange in a step of a compiled ``advance_lanes``.

    None where each lane has one device, or the text of the program cannot be read.
    """
    if DATA not in mesh.shape:
        return None
    try:
        return Exchanges.of(CompiledText(compiled.as_text()).step)
    except Exception as error:  # whatever of the text is not as expected, the program runs all the same
        warn_once(
            f"as_text: jax {jax.__version__} writes compiled programs in a way that hpjax does not read "
            f"({type(error).__name__}: {error}). What the devices of a lane exchange is not counted."
        )
        return None
