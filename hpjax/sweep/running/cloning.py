"""Where the lanes of clones come from. Pure."""

from collections.abc import Mapping, Sequence
from typing import Any

from hpjax.core.arrays import Ints
from hpjax.schedulers import Clone
from hpjax.sweep.running.state import Snapshot


def sources_of(
    ids: Sequence[tuple[int, int]],
    taken: Ints,
    clones: Mapping[int, Clone],
    from_others: Mapping[int, Mapping[int, Snapshot]],
) -> tuple[dict[int, Any], Ints]:
    """Returns for each lane that goes on as a clone its source, and the optimizer steps that each lane took then.

    A source is the number of a lane of the same wave, or the state of a lane of another one.

    Args:
      ids: trial and replicate of each lane of a wave.
      taken: optimizer steps that each of them took, int32 (lanes,).
      clones: trial id to what becomes of it; its lanes are among ``ids``.
      from_others: for sources in other waves, trial id to copies of its lanes by replicate.
    """
    after, lane_of = taken.copy(), {id: lane for lane, id in enumerate(ids)}
    sources: dict[int, Any] = {}
    for lane, (trial, replicate) in enumerate(ids):
        if trial not in clones:
            continue
        source = clones[trial].source
        if (source, replicate) in lane_of:
            sources[lane] = lane_of[source, replicate]
            after[lane] = taken[sources[lane]]  # not after[...]: the source may be a clone itself
        else:
            sources[lane], after[lane] = from_others[source][replicate]
    return sources, after
