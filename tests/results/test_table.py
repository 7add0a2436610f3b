"""A table of trials made by hand, without a sweep: its rankings, columns and grids, and what reads it."""

import numpy as np
import pytest

import hpjax as hpx
from hpjax import plot
from hpjax.core.domains import Range
from hpjax.core.hparams import with_fold
from hpjax.core.objective import Objective
from hpjax.core.space import COLUMNS, OF_HPARAMS, OF_LANES, RESERVED
from hpjax.results import columns, plot_data
from hpjax.results.store.rows import OWNERS, STATUS_DTYPE, Status
from hpjax.results.table import Alternative, CloneRecord, TrialTable

NAN = np.nan


def table(**changes):
    """Six trials of two replicates and two evaluations, at steps 5 and 10; the last one is another shard's."""
    step = np.array([[[5, 10]] * 2, [[5, 10]] * 2, [[5, NAN], [5, 10]], [[5, NAN]] * 2, [[5, 10]] * 2, [[NAN] * 2] * 2])
    loss = np.array([[4, 1], [2, 3], [9, NAN], [8, NAN], [6, 6], [NAN, NAN]], float)[:, None] * np.array([[1.0], [1.5]])
    status = [["complete"] * 2, ["complete"] * 2, ["diverged", "complete"], ["stopped"] * 2, ["complete", "running"]]
    numbers = np.arange(6, dtype=np.int32)
    hparams = [{"rate": rate, "size": size} for rate in (0.1, 0.01, 1.0) for size in (2, 4)]
    values = {
        "names": ("rate", "size"),
        "metrics": ("train/loss", "valid/loss"),
        "objective": Objective("valid/loss", "minimize"),
        "scales": {"rate": "log", "size": "category"},
        "alternatives": (
            Alternative(frozenset({"rate"}), {"rate": Range(0.0, 9.0, "linear")}, {}),
            Alternative(frozenset({"rate", "size"}), {"rate": Range(0.01, 1.0, "log")}, {"size": ("2", "4")}),
        ),
        "hparams": hparams,
        "first_hparams": hparams,
        "lineage": [],
        "rounds": numbers * 0,
        "groups": numbers % 2,
        "waves": numbers % 2,
        "widths": numbers * 0 + 2,
        "lane_status": np.array([*status, ["other_shard"] * 2], STATUS_DTYPE),
        "lane_step": np.array([[10, 10], [10, 10], [7, 10], [5, 5], [10, 10], [0, 0]]),
        "recorded": {"step": step, "seconds": step / 4, "valid/loss": loss, "train/loss": loss - 0.5},
        "tested": {1: {"test/loss": 0.25}},
    }
    return TrialTable(**(values | changes))


def test_a_status_is_its_plain_string():
    assert [*Status] == ["running", "complete", "stopped", "diverged", "failed", "other_shard"]
    assert max(map(len, Status)) == np.dtype(STATUS_DTYPE).itemsize // 4
    assert table().statuses.dtype == np.dtype("<U11")
    assert type(table().statuses.tolist()[-1]) is str


def test_the_worst_replicate_decides_the_status():
    assert table().statuses.tolist() == ["complete", "complete", "diverged", "stopped", "running", "other_shard"]


def test_the_last_values_and_the_ranking():
    expected = [[1, 1.5], [3, 4.5], [NAN, NAN], [8, 12], [6, 9], [NAN, NAN]]
    np.testing.assert_array_equal(table().last("valid/loss"), expected)
    assert table().ranking == [0, 1, 4, 3], "complete ones first, then the one that ran longer"
    assert table().ranked(Objective("train/loss", "maximize")) == [1, 0, 4, 3]
    np.testing.assert_array_equal(plot_data.reached(table(), "valid/loss"), [1.25, 3.75, NAN, 10, 7.5, NAN])
    worst = table(objective=Objective("valid/loss", "minimize", 1.0))
    np.testing.assert_array_equal(plot_data.reached(worst, "valid/loss"), [1.5, 4.5, NAN, 12, 9, NAN])
    assert plot_data.ended_earlier(table()).tolist() == [False, False, True, True, True, True]


def test_columns():
    columns = table().table()
    assert [*columns][:6] == ["trial", "rate", "size", "train/loss", "valid/loss", "gap"]
    assert columns["size"].tolist() == [2, 4] * 3
    np.testing.assert_array_equal(columns["gap"][[0, 1, 3, 4]], [0.5] * 4)
    np.testing.assert_array_equal(columns["test/loss"], [NAN, 0.25, NAN, NAN, NAN, NAN])
    assert columns["step"].tolist() == [10, 10, 7, 5, 10, 0]


def test_the_reserved_names_are_what_tables_and_lanes_have():
    """The list of ``core.space`` against the tables, so that a new column cannot hide a hyperparameter."""
    assert {name for name in table().table() if "/" not in name} - {*table().names} == COLUMNS
    assert {*with_fold(hpx.Hparams({}), 0, 2), *OWNERS[1:2]} == OF_LANES
    assert {name for name in vars(hpx.Hparams) if not name.startswith("_")} == OF_HPARAMS
    assert RESERVED == COLUMNS | OF_LANES | OF_HPARAMS
    for name in RESERVED:
        with pytest.raises(hpx.InputError, match=f"Write {name}_0="):
            hpx.Space(**{name: hpx.Uniform(0, 1)})


@pytest.mark.parametrize(
    "name", ["seconds", "width", "wave", "source", "state", "value", "params", "metrics", "number"]
)
def test_any_other_name_has_a_column_of_its_own(name):
    hpx.Space(**{name: hpx.Uniform(0, 1)})
    renamed = [{name: each["rate"], "size": each["size"]} for each in table().hparams]
    found = table(names=(name, "size"), hparams=renamed).table()
    assert found[name].tolist() == [each["rate"] for each in table().hparams]
    assert found.keys() == {name if each == "rate" else each for each in table().table()}


def test_the_gap_is_of_the_same_metric():
    loss = table().recorded["valid/loss"]
    recorded = {"step": table().recorded["step"], "valid/valid/loss": loss, "train/valid/loss": loss - 2}
    nested = table(metrics=tuple(recorded)[1:], objective=Objective("valid/valid/loss", "minimize"), recorded=recorded)
    np.testing.assert_array_equal(nested.table()["gap"][[0, 1, 3, 4]], [2] * 4)


def test_labels_beside_columns():
    assert columns.labels_of(["a", "steps", "steps_0"], ["steps", "trial"]) == {
        "a": "a",
        "steps": "steps_0",
        "steps_0": "steps_0_0",
    }


def test_a_column_of_bools_is_bool():
    flags = [{"rate": 0.1, "size": bool(i % 2)} for i in range(6)]
    column = table(hparams=flags).table()["size"]
    assert column.dtype == np.bool_
    assert (~column).tolist() == [True, False] * 3
    lacking = table(hparams=[*flags[:5], {"rate": 0.1}]).table()["size"]
    assert lacking.dtype == object
    assert lacking.tolist() == [False, True, False, True, False, None]


def test_a_grid_by_its_values():
    (sizes, rates), trials = table().grid("size", "rate")
    assert (sizes, rates) == ([2, 4], [0.01, 0.1, 1.0])
    assert trials.tolist() == [[2, 0, 4], [3, 1, 5]]
    assert table().varied == ["rate", "size"]
    with pytest.raises(hpx.InputError, match=r"do not tell trials 0 and 1 apart\. Name more of size"):
        table().grid("rate")


def test_ranges_are_those_of_the_alternative():
    assert table().ranges(0) == {"rate": (0.01, 1.0, "log")}
    other = table(first_hparams=[{"rate": 5.0}, {"rate": 5.0, "size": 2}, *table().hparams[2:]])
    assert other.ranges(0) == {"rate": (0.0, 9.0, "linear")}
    assert other.ranges(1) == {}, "a rate beyond both"


def test_descent_follows_the_states():
    lineage = [
        CloneRecord(1, 5, 0, {"rate": 0.2}),
        CloneRecord(2, 5, 4, {"rate": 0.7}),
        CloneRecord(2, 8, 1, {"rate": 0.3}),
    ]
    taken = table(lineage=lineage)
    first = taken.first_hparams[0]
    assert taken.descent(2) == [(0, 0, first), (1, 5, {"rate": 0.2}), (2, 8, {"rate": 0.3})]
    assert plot_data.ancestry(taken, 2) == [(0, 0, 5), (1, 5, 8), (2, 8, 10)]
    assert taken.descent(0) == [(0, 0, first)]


def test_what_reads_a_table_needs_no_more(tmp_path):
    import optuna

    from hpjax.results import optuna_export

    found = [(finding.trial, finding.what) for finding in hpx.diagnose(table())]
    assert (2, "diverged") in found
    assert sorted(plot.pictures(table())) == ["cost", "isolation", "overview", "parallel", "quantiles", "rungs"]
    optuna_export.write(table(), tmp_path / "a.log", "by hand")
    storage = optuna.storages.JournalStorage(optuna.storages.journal.JournalFileBackend(str(tmp_path / "a.log")))
    trials = optuna.load_study(study_name="by hand", storage=storage).trials
    assert [trial.state.name for trial in trials] == ["COMPLETE", "COMPLETE", "FAIL", "PRUNED", "RUNNING", "WAITING"]
    assert trials[0].intermediate_values == {5: 5.0, 10: 1.25}
