"""Accelerators: what their makers publish of memory, bandwidth and arithmetic, and how JAX names them."""

from typing import NamedTuple

GB, MIB, GIB = 10**9, 2**20, 2**30


class Chip(NamedTuple):
    """What the maker of an accelerator publishes of it, for one device of JAX.

    Attributes:
      name: what users call it, such as ``"v5e"``.
      kind: how JAX calls it, the beginning of ``jax.Device.device_kind``.
      platform: ``"tpu"`` or ``"gpu"``.
      memory: bytes of its memory.
      usable: the share of them that JAX takes for arrays, unless told otherwise.
      bandwidth: bytes a second between its memory and its arithmetic.
      near: bytes of the memory on the chip in which the compiler keeps arrays, 0 where it does not or none are known.
      near_bandwidth: bytes a second between that and its arithmetic.
      bfloat16: floating-point operations a second in products of bfloat16 matrices, without sparsity.
      float32: those in products of float32 matrices at the precision that JAX uses by default: a TPU rounds to
        bfloat16, a GPU to TF32.
      source: where that is published.
    """

    name: str
    kind: str
    platform: str
    memory: int
    usable: float
    bandwidth: float
    near: int
    near_bandwidth: float
    bfloat16: float
    float32: float
    source: str

    @property
    def limit(self) -> int:
        """The bytes of memory that JAX has for arrays."""
        return int(self.memory * self.usable)


def _tpu(name: str, kind: str, memory: int, bandwidth: float, peak: float, near: int = 0) -> Chip:
    source = f"https://cloud.google.com/tpu/docs/{name}"
    # The compiler keeps 1/64 of the memory to itself: on v5e it allows 15.75 of 16 GiB. Of the memory on its chip, and
    # that it is 22 times as fast, tells https://jax-ml.github.io/scaling-book/tpus; others are taken to be alike.
    return Chip(name, kind, "tpu", memory, 63 / 64, bandwidth, near, 22 * bandwidth, peak, peak, source)


def _gpu(name: str, kind: str, memory: int, bandwidth: float) -> Chip:
    # XLA_CLIENT_MEM_FRACTION is 0.75. Of Hopper's rates the table of NVIDIA's names those with sparsity, twice as high.
    source = f"https://www.nvidia.com/en-us/data-center/{name}"
    return Chip(name, kind, "gpu", memory, 0.75, bandwidth, 0, float("inf"), 989.4e12, 494.7e12, source)


CHIPS = {
    chip.name: chip
    for chip in (
        # Jouppi et al. 2023, doi:10.1145/3579371.3589350, tells of the memory on its chip.
        _tpu("v4", "TPU v4", 32 * GIB, 1200 * GB, 275e12, 128 * MIB),
        _tpu("v5e", "TPU v5 lite", 16 * GIB, 819 * GB, 197e12, 128 * MIB),
        _tpu("v5p", "TPU v5", 95 * GIB, 2765 * GB, 459e12),
        _tpu("v6e", "TPU v6 lite", 32 * GIB, 1638 * GB, 918e12, 128 * MIB),
        _gpu("h100", "NVIDIA H100 80GB", 80 * GB, 3350 * GB),
        _gpu("h200", "NVIDIA H200", 141 * GB, 4800 * GB),
    )
}


def chip_of(kind: str) -> Chip | None:
    """Returns the chip that ``jax.Device.device_kind`` names, None for one that is not in the table."""
    fitting = [chip for chip in CHIPS.values() if kind.startswith(chip.kind)]
    return max(fitting, key=lambda chip: len(chip.kind), default=None)
