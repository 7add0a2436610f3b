"""Several hosts: the same script runs on each, they share all devices, and the first one writes."""

import atexit
import json
import os
import platform
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils

from hpjax.core.arrays import Array
from hpjax.core.errors import InputError, RunError, check_int


def initialize(
    coordinator_address: str | None = None,
    num_processes: int | None = None,
    process_id: int | None = None,
    **options: Any,
) -> None:
    """Joins the hosts of a cluster, before the first use of JAX; ``jax.distributed.initialize`` with clear errors.

    On a TPU pod, under Slurm, Open MPI and Kubernetes JAX finds out the arguments. Elsewhere give them, or set
    ``JAX_COORDINATOR_ADDRESS``, ``JAX_NUM_PROCESSES`` and ``JAX_PROCESS_ID``.

    Args:
      coordinator_address: ``"host:port"`` of the first process.
      num_processes: how many there are.
      process_id: the number of this one, from 0.
      **options: what else ``jax.distributed.initialize`` takes, such as ``heartbeat_timeout_seconds``: after how long
        without a sign of life a host is taken for lost.

    Raises:
      InputError: they cannot be found out.
      RunError: the others do not answer, or JAX is in use already.
    """
    environment = os.environ
    coordinator_address = coordinator_address or environment.get("JAX_COORDINATOR_ADDRESS")
    if num_processes is None and "JAX_NUM_PROCESSES" in environment:
        num_processes = _number("JAX_NUM_PROCESSES", 1)
    if process_id is None and "JAX_PROCESS_ID" in environment:
        process_id = _number("JAX_PROCESS_ID", 0)
    try:
        jax.distributed.initialize(coordinator_address, num_processes, process_id, **options)
    except ValueError as error:
        raise InputError(
            "distributed.initialize",
            coordinator_address,
            f"cannot find out which hosts there are ({error})",
            "Outside of Slurm, Open MPI, Kubernetes and TPU pods give all three arguments.",
        ) from None
    except RuntimeError as error:
        raise RunError(f"the hosts cannot be joined: {str(error).splitlines()[0]}") from None
    _leave_last_words()


def _number(variable: str, least: int) -> int:
    value = os.environ[variable]
    return check_int(variable, int(value) if value.isdecimal() else value, least)


# Where a host is lost JAX aborts all others from a thread of its own, in which no Python runs.
LAST_WORDS = """\
import signal, sys
for number in (signal.SIGINT, signal.SIGTERM):
    signal.signal(number, signal.SIG_IGN)
if not sys.stdin.buffer.read():
    print("hpjax: the process {} on {} ended at once: it was killed, or another host was lost. What was saved is in "
          "the run directory: start the same command on every host to go on from there.", file=sys.stderr)
"""


def _leave_last_words() -> None:
    """Has a process of its own say what happened, should this one end without a word."""
    script = LAST_WORDS.format(os.getpid(), platform.node())
    heir = subprocess.Popen([sys.executable, "-S", "-c", script], stdin=subprocess.PIPE)

    def farewell() -> None:
        heir.communicate(b"in order")

    atexit.register(farewell)


def several() -> bool:
    """Whether there is more than one host."""
    return bool(jax.process_count() > 1)


def is_writer() -> bool:
    """Whether this is the host that writes: the first."""
    return bool(jax.process_index() == 0)


@contextmanager
def holding_together() -> Iterator[None]:
    """Says that another host was lost, where a device call fails for that."""
    try:
        yield
    except (jax.errors.JaxRuntimeError, ValueError) as error:
        if not several() or not any(word in str(error) for word in ("Gloo", "peer", "heartbeat", "UNAVAILABLE")):
            raise
        who = f"host {jax.process_index()} of {jax.process_count()}"
        raise RunError(
            f"{who} lost touch with another one. What was saved is in the "
            "run directory: start the same command on every host to go on from there."
        ) from None


def broadcast_json(value: Any) -> Any:
    """The value of the writer, as JSON has it, on every host; all of them must ask."""
    return value if not several() else json.loads(_sent(json.dumps(value).encode()))


def on_writer(function: Callable[[], Any]) -> Any:
    """What a function gives that only the writer runs, as JSON has it, on every host; where it fails all of them do."""
    if not several():
        return function()
    found: dict[str, Any] = {}
    failed: Exception | None = None
    if is_writer():
        try:
            found = {"value": function()}
        except Exception as error:
            found, failed = {"error": str(error)}, error
    found = broadcast_json(found)
    if failed is not None:
        raise failed
    if "error" in found:
        raise RunError(found["error"])
    return found["value"]


def broadcast_arrays(arrays: Mapping[str, Array] | None) -> dict[str, Array] | None:
    """Returns the writer's arrays, by name, on every host; all of them must ask."""
    if not several():
        return None if arrays is None else dict(arrays)
    mine = None if arrays is None else {name: [list(a.shape), str(a.dtype)] for name, a in arrays.items()}
    shapes = broadcast_json(mine)
    if shapes is None:
        return None
    found = {}
    for name, (shape, dtype) in shapes.items():
        content = _sent(b"" if arrays is None else np.ascontiguousarray(arrays[name]).tobytes())
        found[name] = np.frombuffer(content, dtype).reshape(shape).copy()
    return found


def check_same(what: str, value: str, remedy: str) -> None:
    """Checks that every host has the same.

    Raises:
      RunError: on the hosts that differ from the first, and on the first.
    """
    if not several():
        return
    mine = np.frombuffer(value.encode()[:64].ljust(64), np.uint8)
    every = multihost_utils.process_allgather(mine)
    other = [host for host, their in enumerate(every) if not np.array_equal(their, every[0])]
    if other:
        hosts = ", ".join(map(str, other))
        raise RunError(f"{what} of host {hosts} is not that of host 0. {remedy}")


def _sent(content: bytes) -> bytes:
    """The writer's bytes on every host. As bytes: a sum over hosts, as which JAX sends, would lose the sign of zero."""

    def broadcast(mine: bytes) -> bytes:
        found = multihost_utils.broadcast_one_to_all(np.frombuffer(mine, np.uint8))
        return np.asarray(found, np.uint8).tobytes()

    # The length as bytes, too: that of a large array is no int32.
    length = int.from_bytes(broadcast(len(content).to_bytes(8, "little")), "little")
    return broadcast(content if is_writer() else bytes(length))
