"""The command that a run directory records, from which ``hpjax resume`` goes on."""

import shlex
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click

from hpjax.core.errors import InputError, RunError


@contextmanager
def as_argv(command: list[str]) -> Iterator[None]:
    """Replaces ``sys.argv`` in its body, for scripts that read it: resumed, they read what they read at the start.

    Manifests record the command that was typed all the same; see ``recording_command``.
    """
    before, sys.argv = sys.argv, command
    try:
        yield
    finally:
        sys.argv = before


def extended(command: Sequence[str], changes: dict[str, int], extend: bool) -> list[str]:
    """Returns a command of ``hpjax run`` with options added; click takes the last one where an option is repeated."""
    words = [word for name, value in changes.items() for word in (f"--{name}", str(value))]
    return [*command, *words, *(["--extend"] if extend and "--extend" not in command else [])]


def recorded_run(directory: Path, run: click.Command, resume: click.Command) -> tuple[list[str], dict[str, Any]]:
    """Returns the ``hpjax run`` command that gives the run in a directory as it is now, and the options in it.

    It is the command that began the run, with the ``--trials`` and ``--steps`` of those that extended it since.

    Args:
      directory: the run directory.
      run, resume: the commands of this name, which parse the options.

    Raises:
      RunError: another program began or extended it, or a recorded command cannot be read.
    """
    from hpjax.results.store.manifest import read_manifest

    manifest = read_manifest(directory)
    command = _run_of(directory, list(manifest.command))
    for extension in map(list, manifest.extended_by):
        if extension[:2] == ["hpjax", "resume"]:
            options = _parsed(directory, resume, extension)
            changes = {name: options[name] for name in ("trials", "steps") if options[name] is not None}
            command = extended(command, changes, extend=True)
        else:
            command = _run_of(directory, extension, "extended")
    return command, _parsed(directory, run, command)


def _run_of(directory: Path, command: list[str], done: str = "begun") -> list[str]:
    """Returns a recorded command. Raises unless it is one of ``hpjax run``; ``done`` says what it did."""
    if command[:2] != ["hpjax", "run"]:
        if command[1:2] == ["merge"]:
            raise RunError(f"{str(directory)!r} was merged, and is finished. Look at it with hpjax show {directory}.")
        raise RunError(
            f"{str(directory)!r} was not {done} by hpjax run, but by {shlex.join(command)!r}. Start that again: it "
            "goes on from the last checkpoint."
        )
    return command


def _parsed(directory: Path, parser: click.Command, command: list[str]) -> dict[str, Any]:
    """Returns the options of a recorded command, ``hpjax NAME ...``."""
    try:
        options = parser.make_context(command[1], command[2:]).params
    except (click.ClickException, click.exceptions.Exit):
        options = {}
    # make_context leaves early, without an error, where the command asks for help.
    if not options:
        raise RunError(
            f"the command in {directory / 'manifest.json'} cannot be read: {shlex.join(command)!r}. Start the run's "
            f"own command again, with --dir {directory}."
        )
    return options


def trusted_file(directory: Path, file: Path) -> Path:
    """Returns the sweep's file as a run directory names it.

    Raises unless it lies below the current folder: a run directory is data that anyone may have written, and must not
    have any file executed.
    """
    here, wanted = Path.cwd().resolve(), file.resolve()
    if not wanted.is_relative_to(here) or wanted.is_relative_to(directory.resolve()):
        raise InputError(
            "--file",
            str(file),
            "is what the run directory names, and only files below the current folder are taken from there",
            f"If it is the sweep that you began, say so: --file {shlex.quote(str(file))}.",
        )
    return file
