"""The user's script: a Python file whose ``sweep`` the command line plans and trains."""

import dataclasses
import importlib.util
import sys
import traceback
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hpjax.core.errors import InputError, ProgramError, RunError, UnknownHyperparameterError
from hpjax.core.user_code import loading, user_lines

if TYPE_CHECKING:
    from types import ModuleType

    from hpjax.sweep.sweep import Sweep

# The errors that are shown as one message. Any other is a fault of the user's code, and is shown with its traceback.
USER_ERRORS = (InputError, ProgramError, RunError, UnknownHyperparameterError, ImportError, OSError)
EXIT_USER_ERROR = 2


def load_sweep(file: Path, **changes: Any) -> "Sweep":
    """Returns the ``sweep`` that a Python file defines, with changes.

    Args:
      file: the file. It runs as a module, not as ``__main__``, with its folder on ``sys.path``.
      **changes: fields of ``Sweep`` and, as ``steps`` and ``eval_every``, of its program; None leaves a field.

    Raises:
      InputError: there is no such file, or it defines no sweep.
      SystemExit: the file raised an error, which was printed.
    """
    # Imported here, because ``hpjax --help`` must not wait for JAX.
    from hpjax.engine.machine import setup
    from hpjax.sweep.sweep import Sweep

    # Before the script, which uses JAX.
    setup()
    sweep = getattr(_run(file), "sweep", None)
    if not isinstance(sweep, Sweep):
        raise InputError(
            "FILE",
            str(file),
            "must define sweep" if sweep is None else f"defines sweep as {type(sweep).__name__}, not hpx.Sweep",
            "Write sweep = hpx.Sweep(program, space, trials=64) at its top level.",
        )
    of_program = {name: changes.pop(name) for name in ("steps", "eval_every")}
    program = dataclasses.replace(sweep.program, **{n: v for n, v in of_program.items() if v is not None})
    return dataclasses.replace(sweep, program=program, **{n: v for n, v in changes.items() if v is not None})


def _run(file: Path) -> "ModuleType":
    """Runs a Python file and returns it as a module."""
    if not file.is_file():
        remedy = f"Name a file that exists, by its path from {Path.cwd()}."
        raise InputError("FILE", str(file), "there is no such file", remedy)
    sys.path.insert(0, str(file.parent.absolute()))
    spec = importlib.util.spec_from_file_location("hpjax_sweep_file", file.absolute())
    if spec is None or spec.loader is None:
        allowed = "must be a Python file, whose name ends in .py"
        raise InputError("FILE", str(file), allowed, "Name the file that defines your sweep: hpjax plan sweep.py.")
    module = importlib.util.module_from_spec(spec)
    # Under its name before it runs, because dataclasses and pickle look their module up there.
    sys.modules[spec.name] = module
    try:
        with loading(file):
            spec.loader.exec_module(module)
    except USER_ERRORS as error:
        error.add_note("\n  ".join(f"at {line}" for line in user_lines(error)))
        raise
    except Exception as error:
        # The traceback begins in the user's file: our frames before it would only hide their bug.
        trace = error.__traceback__
        while trace is not None and trace.tb_frame.f_code.co_filename != str(file.absolute()):
            trace = trace.tb_next
        traceback.print_exception(type(error), error, trace)
        raise SystemExit(EXIT_USER_ERROR) from None
    return module
