"""How many lanes one device computes at once. A heuristic for now; it will be measured."""

CPU_WIDTH = 8
ACCELERATOR_WIDTH = 1024


def chunks_that_fit(memory: int | None, data_bytes: int, chunk_bytes: int) -> int | None:
    """How many chunks of lanes fit on a device, None for any number.

    Args:
      memory: bytes of the device, where known.
      data_bytes: what the data takes of them.
      chunk_bytes: size of a chunk's state. One more is at work, and moving lanes needs all of them twice.
    """
    return None if memory is None else max(((memory - data_bytes) // max(chunk_bytes, 1) - 1) // 2, 1)


def choose(platform: str, lanes: int, devices: int, lane_bytes: int, memory: int | None) -> int:
    """The width for ``lanes`` lanes of the largest group.

    On a CPU 4 to 32 lanes were best for small models (the chunk then stays in cache); an accelerator
    takes as many as there are, while their states and four times that for activations fit.

    Args:
      platform: ``"cpu"``, ``"gpu"`` or ``"tpu"``.
      lanes: lanes of the largest replicate of the largest group.
      devices: devices that share them.
      lane_bytes: size of one lane's state.
      memory: bytes of one device, where known.
    """
    most = CPU_WIDTH if platform == "cpu" else ACCELERATOR_WIDTH
    if memory is not None:
        most = max(1, min(most, memory // (5 * max(lane_bytes, 1))))
    share = -(-lanes // devices)
    return min(most, 1 << (share - 1).bit_length())
