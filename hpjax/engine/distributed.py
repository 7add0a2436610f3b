"""Sweeps on several hosts: the same script runs on each, they share all devices, and the first one writes."""

import atexit
import json
import os
import platform
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils

from hpjax.core.errors import InputError, RunError, check_int

__all__ = ["initialize"]


def initialize(
    coordinator_address: str | None = None,
    num_processes: int | None = None,
    process_id: int | None = None,
    **options: Any,
) -> None:
    """Joins the hosts of a cluster; call it on each of them, before the first use of JAX.

    It calls ``jax.distributed.initialize`` and says what to do where that fails. On a TPU pod, and under Slurm, Open
    MPI and Kubernetes, JAX finds out the arguments. Elsewhere give them, or set the environment variables
    ``JAX_COORDINATOR_ADDRESS``, ``JAX_NUM_PROCESSES`` and ``JAX_PROCESS_ID``.

    Args:
      coordinator_address: ``"host:port"`` of the first process.
      num_processes: the number of processes.
      process_id: the number of this process, from 0.
      **options: further arguments of ``jax.distributed.initialize``, such as ``heartbeat_timeout_seconds``, the
        seconds without a sign of life after which a host counts as lost.

    Raises:
      InputError: an argument is not given and cannot be found out, or an environment variable is no number.
      RunError: the other processes do not answer, or JAX is in use already.

    Example:
      >>> hpx.distributed.initialize("10.0.0.1:1234", num_processes=2, process_id=0)  # doctest: +SKIP
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
            "Outside of Slurm, Open MPI, Kubernetes and TPU pods give all three arguments, as in "
            'hpx.distributed.initialize("10.0.0.1:1234", num_processes=2, process_id=0).',
        ) from None
    except RuntimeError as error:
        raise RunError(f"the hosts cannot be joined: {str(error).splitlines()[0]}") from None
    _start_watchdog()


def _number(variable: str, least: int) -> int:
    value = os.environ[variable]
    return check_int(variable, int(value) if value.isdecimal() else value, least)


# Where a host is lost, JAX aborts the processes of all others from a thread in which no Python runs, so that this
# process cannot say why it ends. A second one can: its standard input ends together with this process.
WATCHDOG = """\
import signal, sys
for number in (signal.SIGINT, signal.SIGTERM):
    signal.signal(number, signal.SIG_IGN)
if not sys.stdin.buffer.read():
    print("hpjax: the process {} on {} ended at once: it was killed, or another host was lost. What was saved is in "
          "the run directory: start the same command on every host to go on from there.", file=sys.stderr)
"""


def _start_watchdog() -> None:
    """Starts a watchdog process that reports if this process is killed."""
    script = WATCHDOG.format(os.getpid(), platform.node())
    watchdog = subprocess.Popen([sys.executable, "-S", "-c", script], stdin=subprocess.PIPE)

    def stop_watchdog() -> None:
        # Any input tells it that this process ends in order.
        watchdog.communicate(b"in order")

    atexit.register(stop_watchdog)


def several() -> bool:
    """Returns whether there is more than one host."""
    return bool(jax.process_count() > 1)


def is_writer() -> bool:
    """Returns whether this is the host that prints and writes: the first."""
    return bool(jax.process_index() == 0)


@contextmanager
def holding_together() -> Iterator[None]:
    """Raises ``RunError`` where a device call in its body fails because another host was lost."""
    try:
        yield
    except (jax.errors.JaxRuntimeError, ValueError) as error:
        # JAX has no error of its own for this. These words are in the messages of its transports.
        if not several() or not any(word in str(error) for word in ("Gloo", "peer", "heartbeat", "UNAVAILABLE")):
            raise
        who = f"host {jax.process_index()} of {jax.process_count()}"
        raise RunError(
            f"{who} lost touch with another one. What was saved is in the "
            "run directory: start the same command on every host to go on from there."
        ) from None


def broadcast_json(value: Any) -> Any:
    """Returns the writer's value on every host, after a round trip through JSON where there are several.

    All hosts must call it.
    """
    return value if not several() else json.loads(_broadcast(json.dumps(value).encode()))


def on_writer(function: Callable[[], Any]) -> Any:
    """Calls a function on the writer alone, and returns its value on every host as ``broadcast_json`` does.

    All hosts must call it.

    Raises:
      Exception: on the writer, what the function raised.
      RunError: on the other hosts, where the function raised on the writer.
    """
    if not several():
        return function()
    found: dict[str, Any] = {}
    failed: Exception | None = None
    if is_writer():
        try:
            found = {"value": function()}
        except Exception as error:
            found, failed = {"error": str(error)}, error
    # The error is sent before it is raised: the other hosts wait for an answer, and would wait forever.
    found = broadcast_json(found)
    if failed is not None:
        raise failed
    if "error" in found:
        raise RunError(found["error"])
    return found["value"]


def on_each(function: Callable[[], str | None]) -> list[str]:
    """Calls a function on every host, and returns the first 200 bytes of what it gave on each, in their order.

    All hosts must call it, and none goes on before all have called the function.

    Raises:
      Exception: on a host where the function raised, what it raised.
      RunError: on the others, where it raised on one.
    """
    if not several():
        return [function() or ""]
    failed: Exception | None = None
    try:
        mine = f"+{function() or ''}"
    except Exception as error:
        failed, mine = error, f"-on host {jax.process_index()}: {error}"
    # Told before it is raised: the other hosts wait for an answer, and would wait forever.
    found = from_each(mine, 201)
    if failed is not None:
        raise failed
    if wrong := [each[1:] for each in found if each.startswith("-")]:
        raise RunError(wrong[0])
    return [each[1:] for each in found]


def check_same(what: str, value: str, remedy: str) -> None:
    """Raises unless every host has the same value. All hosts must call it.

    Args:
      what: the name of the value in the message.
      value: the text to compare, of which 64 bytes count: a digest.
      remedy: the sentence that ends the message.

    Raises:
      RunError: on every host, where one differs from the first.
    """
    values = from_each(value, 64)
    other = [host for host, theirs in enumerate(values) if theirs != values[0]]
    if other:
        hosts = ", ".join(map(str, other))
        raise RunError(f"{what} of host {hosts} is not that of host 0. {remedy}")


def from_each(text: str, length: int) -> list[str]:
    """Returns the texts of all hosts, in their order, without blanks at their ends. All hosts must call it.

    Args:
      text: the text of this host.
      length: how many bytes of it count, the same number on every host.
    """
    # Padded, because an all-gather takes arrays of one shape.
    mine = np.frombuffer(text.encode()[:length].ljust(length), np.uint8)
    values = multihost_utils.process_allgather(mine) if several() else [mine]
    return [np.asarray(each).tobytes().decode(errors="ignore").rstrip() for each in values]


def _broadcast(content: bytes) -> bytes:
    """Returns the writer's bytes on every host."""

    def broadcast(mine: bytes) -> bytes:
        # As bytes, because JAX broadcasts by a sum over hosts, in which floating-point numbers lose the sign of zero.
        found = multihost_utils.broadcast_one_to_all(np.frombuffer(mine, np.uint8))
        return np.asarray(found, np.uint8).tobytes()

    # The other hosts need the length first. It is sent as bytes, too, because that of a large array is no int32.
    length = int.from_bytes(broadcast(len(content).to_bytes(8, "little")), "little")
    return broadcast(content if is_writer() else bytes(length))
