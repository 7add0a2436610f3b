"""Laws 5 and 6, and the rooms: imports go downward only, and search and engine do not know each other."""

import ast
from pathlib import Path

import pytest

import hpjax

ROOT = Path(hpjax.__file__).parent

# From the top; a module imports only from lines below its own. Modules on one line do not know each other.
LAYERS = """
__main__
frontends.submitit
frontends.cli frontends.optuna frontends.sklearn
studies.batch_scaling
studies.batch_scaling_result
studies.fits studies.noise_scale studies.quadratic
sweep.sweep
sweep.replay
sweep.running.progress sweep.running.runner frontends.testing sweep.planning.autotune
sweep.running.race sweep.extend
sweep.running.recorder
sweep.identity results.store.manifest sweep.running.wave
sweep.running.scores sweep.planning.programs sweep.running.events
sweep.planning.planner
sweep.planning.advice
sweep.planning.arrange engine.machine
sweep.spec sweep.planning.rate_cache
results.merge
results.result
results.trial
results.plot
results.analysis results.diagnosis results.optuna_export sweep.running.state results.export
results.store.run_store
results.store.reader results.store.manifest
results.store.database results.store.final_states
results.store.rows results.store.database results.store.files
training.builder training.validation sweep.models
training.trainer
training.losses
training.network training.measures
optim.transforms nn training.monitors optim.decay_bounds
optim.schedules nn.dense nn.dropout nn.norm nn.depth
nn.masks
nn.initializers
data.loaders data.batches sweep.running.prefetch
data.stream
data.examples
engine.device_lanes sweep.planning.cost sweep.planning.value_checks
engine.compile
engine.segment
sweep.planning.plan sweep.running.preemption engine.device_errors
engine.distributed
results.store.checkpoints
engine.tracing engine.layout
engine.lane engine.shapes engine.probe sweep.planning.width engine.sharding core.user_code samplers schedulers
engine.lowering engine.flops
engine.conv_kernels
samplers.bayes samplers.refine
samplers.optuna samplers.sobol samplers.grid samplers.manual samplers.random samplers.gaussian_process
schedulers.halving schedulers.hyperband schedulers.median schedulers.patience schedulers.pbt
schedulers.rungs
samplers.base schedulers.base
training.early_stopping
core.program core.objective training.metrics core.keys data.shuffle
core.hparams core.space core.threefry
core.domains core.bounds sweep.shard results.store.validation results.store.files training.host_metric
core.errors core.format core.hashing
"""

LEVEL = {name: level for level, line in enumerate(LAYERS.strip().splitlines()) for name in line.split()}
MODULES = sorted(path for path in ROOT.rglob("*.py") if path != ROOT / "__init__.py")


def name_of(path):
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imported(path):
    """The modules of hpjax that a file imports at run time, inside functions too."""
    tree = ast.parse(path.read_text())
    typing_only = {
        id(node)
        for block in ast.walk(tree)
        if isinstance(block, ast.If) and getattr(block.test, "id", "") == "TYPE_CHECKING"
        for node in ast.walk(block)
    }
    for node in ast.walk(tree):
        if id(node) in typing_only:
            continue
        if isinstance(node, ast.Import):
            yield from (a.name.removeprefix("hpjax.") for a in node.names if a.name.startswith("hpjax."))
        elif isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "hpjax":
            base = (node.module or "").removeprefix("hpjax").lstrip(".")
            for alias in node.names:
                longer = f"{base}.{alias.name}".lstrip(".")
                yield longer if longer in LEVEL else base


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_imports_go_downward(path):
    name = name_of(path)
    if path.name == "__init__.py":
        return
    assert name in LEVEL, f"hpjax/{path.relative_to(ROOT)} has no layer: give it a line in LAYERS"
    for other in imported(path):
        if (ROOT / other.replace(".", "/")).is_dir():  # its public names: a file below
            continue
        assert LEVEL[other] > LEVEL[name], f"{name} imports {other}, which is not below it"


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_search_and_engine_do_not_know_each_other(path):
    name = name_of(path)
    found = list(imported(path))
    if name.startswith("engine"):
        assert not any(other.startswith(("samplers", "schedulers", "sweep", "store", "result")) for other in found)
    if name.startswith(("samplers", "schedulers")):
        assert not any(other.startswith(("engine", "sweep", "store", "result", "program")) for other in found)


def test_every_layer_exists():
    assert {name_of(path) for path in MODULES if path.name != "__init__.py"} == set(LEVEL)


def test_the_nouns_import_nothing_above_them():
    nouns = {"core.program", "core.space", "core.hparams"}
    allowed = nouns | {"core.domains", "core.errors", "core.format"}
    for path in MODULES:
        if name_of(path) in nouns:
            assert set(imported(path)) <= allowed
