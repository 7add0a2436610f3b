"""On clusters: sweeps as jobs of submitit, which comes with the extra ``submitit``."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from hpjax.core.errors import RunError, missing
from hpjax.sweep.shard import Shard

try:
    import click  # noqa: F401  without it the command line would end the process
except ImportError:
    raise missing("hpx.cluster", "click") from None
from hpjax.frontends import cli

if TYPE_CHECKING:
    from submitit.helpers import DelayedSubmission

CALLED = "hpjax run"


class Job:
    """What ``hpjax run FILE --dir DIRECTORY`` does, as a callable that submitit can submit, and submit again.

    A job that is preempted or runs out of its time is queued again and goes on from its last checkpoint.

    Args:
      file: a Python file that defines ``sweep``.
      directory: of the run, where all nodes see it.
      shard: ``(1, 4)`` for the first of four parts; ``hpx.merge`` joins them.
      **changes: options of the command line: ``trials=64, seed=1, quiet=True``.

    Raises:
      InputError, click.UsageError: the command line has no such option, or takes no such value.

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
        cli.run.make_context(CALLED, self.arguments)  # where it is submitted, not in the job

    @property
    def arguments(self) -> list[str]:
        """Those of ``hpjax run``."""
        found = [str(self._file), f"--dir={self.directory}"]
        for name, value in self._options.items():
            if value is not None and value is not False:
                found += [f"--{name.replace('_', '-')}", *([] if value is True else [str(value)])]
        return found

    def __call__(self) -> Path:
        """Trains, or goes on, and returns the run directory."""
        try:
            cli.run.main(self.arguments, prog_name=CALLED, standalone_mode=False)
        except SystemExit as ended:
            # The command line has told why. submitit ends jobs in this way too, which is not ours to stop.
            if ended.code == cli.EXIT_USER_ERROR:
                raise RunError(f"{str(self._file)!r} cannot be run; the job's log says why.") from None
            raise
        return self.directory

    def checkpoint(self) -> "DelayedSubmission":
        """What submitit asks for when the job has to end: this very job, which goes on from its directory."""
        from submitit.helpers import DelayedSubmission

        return DelayedSubmission(self)
