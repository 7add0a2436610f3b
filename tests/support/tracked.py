"""What trackers wrote, read by their own libraries: run to its configuration, status and curves."""

import json
import struct
from collections import defaultdict
from typing import NamedTuple

# The size of a block of a file of W&B.
BLOCK = 32768


class Logged(NamedTuple):
    """A run as a library has it: ``curves`` are metric to (step, value) of every row, doubles too."""

    config: dict
    status: str
    summary: dict
    curves: dict


def jsonl(path):
    """The runs of a JSONL file, with what ``Logged`` has."""
    runs = defaultdict(lambda: Logged({}, [], {}, defaultdict(list)))
    for line in path.read_text().splitlines():
        found = json.loads(line)
        run = runs[f"trial-{found.get('trial')}"]
        if found["type"] == "trial":
            run.config.update(found["hparams"])
        elif found["type"] == "status":
            run.status.append(found["status"])
        elif found["type"] == "evaluation":
            for name, value in found["metrics"].items():
                run.curves[f"{name}/replicate {found['replicate']}"].append((found["step"], value))
    return {key: run for key, run in runs.items() if key != "trial-None"}


def tensorboard(folder):
    """The runs of a folder, as TensorBoard's own reader and its HParams plugin have them."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
    from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData

    runs = {}
    for own in sorted(path for path in folder.glob("*/*") if path.is_dir()):
        events = EventAccumulator(str(own), size_guidance={"scalars": 0, "tensors": 0}).Reload()
        curves = {tag: [(e.step, e.value) for e in events.Scalars(tag)] for tag in events.Tags()["scalars"]}
        config, status = {}, ""
        for content in events.PluginTagToContent("hparams").values() if own.name != "sweep" else ():
            data = HParamsPluginData.FromString(content)
            if data.HasField("session_start_info"):
                values = data.session_start_info.hparams.items()
                config = {name: getattr(value, value.WhichOneof("kind")) for name, value in values}
            if data.HasField("session_end_info"):
                status = {1: "complete", 2: "diverged"}.get(data.session_end_info.status, "?")
        text = events.Tensors("summary")[-1].tensor_proto.string_val[0].decode()
        summary = dict(line.strip().split(": ", 1) for line in text.splitlines())
        runs[own.name] = Logged(config, status, summary, curves)
    return runs


def mlflow(uri, experiment):
    """The runs of an experiment, as MLflow's client has them."""
    from mlflow.tracking import MlflowClient

    client = MlflowClient(uri)
    found = client.search_runs([client.get_experiment_by_name(experiment).experiment_id], max_results=1000)
    runs = {}
    for run in found:
        history = {name: client.get_metric_history(run.info.run_id, name) for name in run.data.metrics}
        curves = {name: sorted((each.step, each.value) for each in rows) for name, rows in history.items()}
        tags = run.data.tags
        runs[tags["hpjax.run"]] = Logged(run.data.params, tags.get("status", ""), tags, curves)
    return runs


def wandb(folder):
    """The runs of a folder that W&B wrote offline, those of one id together."""
    runs = {}
    for path in sorted(folder.glob("wandb/offline-run-*/run-*.wandb")):
        for record in _records(path.read_bytes()):
            kind = record.WhichOneof("record_type")
            if kind == "run":
                id = record.run.run_id.split("-", 1)[1]
                run = runs.setdefault(id, Logged({}, [], {}, defaultdict(list)))
                run.config.update({each.key: json.loads(each.value_json) for each in record.run.config.update})
            elif kind == "summary":
                values = record.summary.update
                run.summary.update({e.key or "/".join(e.nested_key): json.loads(e.value_json) for e in values})
            elif kind == "history":
                row = {e.key or "/".join(e.nested_key): json.loads(e.value_json) for e in record.history.item}
                axis = row.get("step", row.get("lane_steps"))
                for name, value in row.items():
                    if not name.startswith("_") and name not in ("step", "lane_steps"):
                        run.curves[name].append((axis, value))
    return {id: run._replace(status=run.summary.get("status", "")) for id, run in runs.items()}


def _records(content):
    """The records of a file of W&B, which is a log as LevelDB has it behind a header of seven bytes."""
    from wandb.proto.wandb_internal_pb2 import Record

    at, parts = 7, b""
    while at + 7 <= len(content):
        if BLOCK - at % BLOCK < 7:
            at += BLOCK - at % BLOCK
            continue
        _, length, kind = struct.unpack("<IHB", content[at : at + 7])
        parts += content[at + 7 : at + 7 + length]
        at += 7 + length
        if kind in (1, 4):  # a whole record, or the last part of one
            yield Record.FromString(parts)
            parts = b""
