"""The baseline of mean imputation: a mean over scenarios that was worked out by hand."""

import csv
import importlib.util
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from anysubset.experiments.files import read_experiment, write_experiment

SCRIPT = Path(__file__).parents[1] / "benchmarks" / "imputation.py"


@pytest.fixture(scope="module")
def imputation() -> ModuleType:
    spec = importlib.util.spec_from_file_location("imputation", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(params=["classes", "regression"])
def runs(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """Runs on a table whose modality `a` is the target, and whose modality `b` says nothing."""
    y = np.array([1] * 6 + [-1] * 2 + [1, 1, 1, -1] * 2)
    a, b = y[:, None].astype(np.float32), np.zeros((len(y), 1), np.float32)
    target = (y > 0).astype(np.int64) if request.param == "classes" else 1.5 * y.astype(np.float32)
    split = np.array(["train"] * 8 + ["val"] * 4 + ["test"] * 4)
    np.savez(tmp_path / "table.npz", a=a, b=b, y=target, split=split)
    experiment = read_experiment(None, {"data.name": "table", "data.root": str(tmp_path / "table.npz")})
    for method in ("gmd", "full"):
        folder = tmp_path / "runs" / "0" / "none" / method
        folder.mkdir(parents=True)
        write_experiment(experiment, folder / "experiment.yaml")
    return tmp_path / "runs"


def test_the_mean_over_scenarios_is_that_worked_out_by_hand(imputation, runs, tmp_path, capsys):
    imputation.main([str(runs), "--output", str(tmp_path / "out.csv")])
    with (tmp_path / "out.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    # With `a`, all 4 test samples are right. With `b` alone, `a` is its training mean, so all get the class of
    # 6 of the 8 training samples, which 3 of the 4 have: (1 + 3/4 + 1) / 3.
    assert [(row["variants"], row["seed"]) for row in rows] == [("none", "0")]
    assert float(rows[0]["accuracy"]) == pytest.approx(11 / 12)
    assert "91.7" in capsys.readouterr().out


def test_only_runs_called_gmd_are_taken(imputation, runs):
    assert list(imputation.runs_below([runs])) == [runs / "0" / "none" / "gmd"]
