"""Sweeps as jobs on a cluster, ``hpx.cluster``; needs the package submitit."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from hpjax.core.errors import RunError, missing
from hpjax.frontends.script import EXIT_USER_ERROR
from hpjax.results.store.manifest import recording_command
from hpjax.sweep.shard import Shard

try:
    import click  # noqa: F401  without it the command line would end the process
except ImportError:
    raise missing("hpx.cluster", "click") from None
from hpjax.frontends import cli

if TYPE_CHECKING:
    from submitit.helpers import DelayedSubmission

__all__ = ["Job"]

CALLED = "hpjax run"


class Job:
    """A callable for submitit that does what ``hpjax run FILE --dir DIRECTORY`` does.

    A job that is preempted or runs out of time is queued again, and goes on from its last checkpoint.

    Args:
      file: a Python file that defines ``sweep``.
      directory: the run directory, on a file system that all nodes share.
      shard: ``(1, 4)`` for the first of four parts of the trials; ``hpx.merge`` joins the finished parts.
      **changes: options of ``hpjax run``, such as ``trials=64, seed=1, quiet=True``.

    Attributes:
      directory: the run directory, absolute.

    Raises:
      InputError, click.UsageError: ``hpjax run`` has no such option, or takes no such value.

    Example:
      >>> jobs = [Job("sweep.py", f"runs/{i}", shard=(i, 4), seed=1) for i in range(1, 5)]
      >>> jobs[0].arguments[2:]
      ['--shard', '1/4', '--seed', '1']

      With ``executor = submitit.AutoExecutor("logs")``, ``executor.submit_array(jobs)`` submits them.
    """

    def __init__(
        self, file: str | Path, directory: str | Path, shard: tuple[int, int] | None = None, **changes: Any
    ) -> None:
        self._file, self.directory = Path(file).absolute(), Path(directory).absolute()
        self._options = changes if shard is None else {"shard": Shard.read(shard)} | changes
        cli.run.make_context(CALLED, self.arguments)  # fails here, where it is submitted, and not in the job

    @property
    def arguments(self) -> list[str]:
        """The arguments of ``hpjax run``."""
        found = [str(self._file), f"--dir={self.directory}"]
        for name, value in self._options.items():
            if value is not None and value is not False:
                found += [f"--{name.replace('_', '-')}", *([] if value is True else [str(value)])]
        return found

    def __call__(self) -> Path:
        """Trains, or goes on, and returns the run directory.

        Raises:
          RunError: the script failed; the job's log says how.
        """
        try:
            with recording_command([*CALLED.split(), *self.arguments]):
                cli.run.main(self.arguments, prog_name=CALLED, standalone_mode=False)
        except SystemExit as ended:
            # The script's error was printed. As submitit itself ends jobs by SystemExit, any other passes through.
            if ended.code == EXIT_USER_ERROR:
                raise RunError(
                    f"{str(self._file)!r} cannot be run: read the error in the job's log, job.stderr()."
                ) from None
            raise
        return self.directory

    def checkpoint(self) -> "DelayedSubmission":
        """Returns the job that submitit queues when this one has to end: the same, which goes on from its directory."""
        from submitit.helpers import DelayedSubmission

        return DelayedSubmission(self)
