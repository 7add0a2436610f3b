"""JSON Lines: one file with a line for whatever happens, for scripts and for tools of one's own."""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import msgspec
import numpy as np

from hpjax.core.errors import RunError
from hpjax.core.records import finite_or_none
from hpjax.results.store.rows import Status
from hpjax.results.table import CloneRecord, TrialTable
from hpjax.results.trackers.base import Evaluation, TrackedRun, Tracker


def _schema(**types: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the JSON Schema of lines of these types, each with the properties that all of it have."""
    lines = [
        {
            "properties": {"run": {"type": "string", "pattern": "^[0-9a-f]{12}$"}, "type": {"const": kind}, **own},
            "required": ["run", "type", *own],
            "additionalProperties": False,
        }
        for kind, own in types.items()
    ]
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", "type": "object", "oneOf": lines}


_INT, _OBJECT = {"type": "integer", "minimum": 0}, {"type": "object"}
_METRICS = {"type": "object", "additionalProperties": {"type": ["number", "null"]}}


class JSONL(Tracker):
    """Writes what happens to a file, a JSON object a line, in the order in which it does.

    Each has ``"run"``, the id of the run, and ``"type"``, by which it has: ``"run"`` what the manifest says;
    ``"trial"`` a trial and its hyperparameters; ``"evaluation"`` trial, replicate, optimizer step and metrics of a
    lane; ``"clone"`` a trial that went on from the state of another, and with which hyperparameters; ``"status"`` how
    each lane ended; and ``"summary"`` the best trial. What is not finite is null. No line is written twice, also where
    a run is resumed; several runs may share a file. ``JSONL.SCHEMA`` is the JSON Schema of a line.

    Args:
      path: the file, to which lines are added.

    Example:
      >>> import pathlib, tempfile
      >>> path = pathlib.Path(tempfile.mkdtemp()) / "sweep.jsonl"
      >>> tracker = hpx.trackers.JSONL(path)
      >>> result = hpx.Sweep(program, space, trials=2).run(progress=False, trackers=[tracker])
      >>> [json.loads(line)["type"] for line in path.read_text().splitlines()][:4]
      ['run', 'trial', 'trial', 'evaluation']
    """

    SCHEMA: ClassVar[Mapping[str, Any]] = _schema(
        run={
            "name": {"type": "string"},
            "created": {"type": "string", "format": "date-time"},
            "command": {"type": "array", "items": {"type": "string"}},
            "versions": _OBJECT,
            "devices": _OBJECT,
            "sweep": _OBJECT,
        },
        trial={"trial": _INT, "hparams": _OBJECT},
        evaluation={"trial": _INT, "replicate": _INT, "step": _INT, "metrics": _METRICS},
        clone={"trial": _INT, "step": _INT, "source": _INT, "hparams": _OBJECT},
        status={"trial": _INT, "replicate": _INT, "status": {"enum": [*map(str, Status)]}, "step": _INT},
        summary={
            "trials": _INT,
            "best": {"anyOf": [_INT, {"type": "null"}]},
            "hparams": _OBJECT,
            "metrics": _METRICS,
        },
    )

    def __init__(self, path: str | Path) -> None:
        self._path = Path(path).absolute()
        self._run = ""
        self._last: dict[tuple[int, int], int] = {}
        self._written: set[str] = set()

    def begin(self, run: TrackedRun, table: TrialTable) -> None:
        """Reads what the file has of the run, and adds what it lacks."""
        self._run = run.id
        self._read()
        manifest = msgspec.to_builtins(run.manifest)
        about = {name: manifest[name] for name in ("created", "command", "versions", "devices", "sweep")}
        self._write([self._line("run", name=run.name, **about)])
        self.add_trials(dict(enumerate(table.first_hparams)))
        steps = table.curves("step")
        for at in range(steps.shape[-1]):
            trial, replicate = np.nonzero(~np.isnan(steps[..., at]))
            metrics = {name: table.curves(name)[trial, replicate, at] for name in table.metrics}
            self.log(Evaluation(trial, replicate, steps[trial, replicate, at].astype(int), metrics, 0, 0, None))

    def add_trials(self, hparams: Mapping[int, Mapping[str, Any]]) -> None:
        """Writes a line for each trial."""
        self._write(self._line("trial", trial=t, hparams=values) for t, values in hparams.items())

    def add_clones(self, clones: Sequence[CloneRecord]) -> None:
        """Writes a line for each."""
        self._write(self._line("clone", **clone._asdict()) for clone in clones)

    def log(self, evaluation: Evaluation) -> None:
        """Writes a line for each lane."""
        self._write(self._evaluated(evaluation))

    def end(self, table: TrialTable, finished: bool) -> None:
        """Writes how each lane ended and which trial is the best, if the run is finished."""
        self.add_clones(table.lineage)
        if not finished:
            return
        status, step = table.lane_status.tolist(), table.lane_step.tolist()
        self._write(
            self._line("status", trial=t, replicate=r, status=status[t][r], step=step[t][r])
            for t in range(len(table))
            for r in range(len(status[t]))
        )
        best = table.ranking[0] if table.ranking else None
        about: dict[str, Any] = {"trials": len(table), "best": best, "hparams": {}, "metrics": {}}
        if best is not None:
            last = {name: float(table.last(name)[best].mean()) for name in table.metrics}
            about |= {"hparams": table.hparams[best], "metrics": finite_or_none(last)}
        self._write([self._line("summary", **about)])

    def _evaluated(self, evaluation: Evaluation) -> Iterator[str]:
        """Yields the lines of the lanes that have none for their step."""
        columns = {name: values.tolist() for name, values in evaluation.metrics.items()}
        lanes = zip(evaluation.trial.tolist(), evaluation.replicate.tolist(), evaluation.step.tolist(), strict=True)
        for at, (trial, replicate, step) in enumerate(lanes):
            if step > self._last.get((trial, replicate), -1):
                self._last[trial, replicate] = step
                metrics = finite_or_none({name: values[at] for name, values in columns.items()})
                yield self._line("evaluation", trial=trial, replicate=replicate, step=step, metrics=metrics)

    def _line(self, kind: str, **content: Any) -> str:
        return json.dumps({"run": self._run, "type": kind, **content}) + "\n"

    def _write(self, lines: Iterable[str]) -> None:
        """Adds lines to the file, without those that it has."""
        new = [line for line in dict.fromkeys(lines) if line not in self._written]
        self._written.update(line for line in new if '"type": "evaluation"' not in line)
        with self._path.open("a", encoding="utf-8") as file:
            file.write("".join(new))

    def _read(self) -> None:
        """Reads what the file has of the run; a last line that was not written whole is cut off."""
        self._path.parent.mkdir(parents=True, exist_ok=True)
        if not self._path.exists():
            return
        with self._path.open("r+b") as file:
            whole = 0
            for number, line in enumerate(file, 1):
                if not line.endswith(b"\n"):
                    break
                whole += len(line)
                try:
                    found = json.loads(line)
                except ValueError:
                    raise RunError(
                        f"line {number} of {self._path} is no JSON: {line[:100]!r}. Write to another file."
                    ) from None
                if not isinstance(found, dict) or found.get("run") != self._run:
                    continue
                if found["type"] == "evaluation":
                    self._last[found["trial"], found["replicate"]] = found["step"]
                else:
                    self._written.add(line.decode())
            file.truncate(whole)
