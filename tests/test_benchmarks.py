"""The benchmarks run, measure every contender, and agree with theory."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"
OURS = ["ours, stored", "ours, batched", "ours, recomputed", "ours, streamed"]
TORCHJD = ["TorchJD autojac", "TorchJD autojac, one by one", "TorchJD autogram"]


def run(script: str, output: Path, *options: str) -> dict[str, Any]:
    command = [sys.executable, str(BENCHMARKS / script), "--output", str(output), *options]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env={"OMP_NUM_THREADS": "1"})
    assert done.returncode == 0, done.stderr
    return json.loads(output.read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def sequences(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    output = tmp_path_factory.mktemp("benchmarks") / "engine.json"
    return run("engine.py", output, "--network", "sequences", "--quick", "--repeats", "1")


def by_contender(experiment: dict[str, Any]) -> dict[str, Any]:
    assert not [result for result in experiment["results"] if "failed" in result]
    return {result["contender"]: result for result in experiment["results"]}


@pytest.mark.slow
def test_every_contender_is_measured(sequences: dict[str, Any]):
    assert [experiment["cases"] for experiment in sequences["experiments"]] == ["random=5", "all"]
    missing = sequences["not_importable"]
    for experiment in sequences["experiments"]:
        results = by_contender(experiment)
        assert {"plain mean loss", "published style", *OURS} <= set(results)
        assert {*results, *missing} == {"plain mean loss", "published style", "LibMTL", *TORCHJD, *OURS}
        for result in results.values():
            assert result["ratio"]["min"] <= result["ratio"]["median"] <= result["ratio"]["max"]
            assert result["peak_bytes"] > 0
    partly, fully = sequences["projections"]
    assert 0 < partly["conflicts"] < partly["pairs"] == fully["conflicts"]
    assert {"ours", "published style"} <= {result["contender"] for result in partly["results"]}
    assert sequences["environment"]["threads"] == 1


@pytest.mark.slow
def test_all_contenders_take_the_same_step(sequences: dict[str, Any]):
    for experiment in sequences["experiments"]:
        assert experiment["conflicts"] > 0  # Otherwise nothing would be projected.
        for name, result in by_contender(experiment).items():
            if name == "plain mean loss":
                assert "error" not in result
            else:
                assert result["error"] < 1e-5
    for projection in sequences["projections"]:
        for result in projection["results"]:
            assert result["error"] < 1e-4


@pytest.mark.slow
def test_flops_agree_with_theory(sequences: dict[str, Any]):
    for experiment in sequences["experiments"]:
        flops = {name: result["flops"] for name, result in by_contender(experiment).items()}
        plain = flops["plain mean loss"]
        assert plain < flops["ours, stored"]
        # The private encoders are differentiated once per step and not once per case.
        assert flops["ours, stored"] < flops["published style"]
        # The same operations, batched.
        assert flops["ours, batched"] == pytest.approx(flops["ours, stored"], rel=1e-3)
        # One more forward pass, which is about a third of a plain step.
        assert 0.2 * plain < flops["ours, recomputed"] - flops["ours, stored"] < 0.5 * plain
        assert flops["ours, streamed"] > flops["ours, stored"]
        if "TorchJD autojac" in flops:
            # It also propagates zeros through the branches of absent modalities.
            assert flops["TorchJD autojac"] > flops["published style"]


@pytest.mark.slow
def test_streaming_needs_less_memory_than_stored_rows(sequences: dict[str, Any]):
    for experiment in sequences["experiments"]:
        peak = {name: result["peak_bytes"] for name, result in by_contender(experiment).items()}
        assert peak["plain mean loss"] < peak["ours, streamed"] < peak["ours, stored"] < peak["published style"]
        # The stored rows are a lower bound: 4 bytes per case and shared parameter.
        assert peak["ours, stored"] > 4 * len(experiment["names"]) * experiment["shared"]


@pytest.mark.slow
def test_the_brats_network_is_measured(tmp_path: Path):
    options = ("--network", "brats", "--quick", "--repeats", "1", "--only", "stored", "published")
    measured = run("engine.py", tmp_path / "engine.json", *options)
    for experiment in measured["experiments"]:
        results = by_contender(experiment)
        assert experiment["parameters"] == 3_245_235
        assert list(results) == ["plain mean loss", "published style", "ours, stored"]
        assert results["ours, stored"]["error"] < 1e-4
        assert results["ours, stored"]["peak_bytes"] < results["published style"]["peak_bytes"]


@pytest.mark.slow
def test_the_cost_by_number_of_modalities_is_measured(tmp_path: Path):
    rows = run("modalities.py", tmp_path / "modalities.json", "--most", "4", "--draws", "2")["rows"]
    assert [row["modalities"] for row in rows] == [2, 3, 4]
    # M 2^(M-1) for M = 2, 3, 4.
    assert [row["all"]["branches"] for row in rows] == [4, 12, 32]
    for row in rows:
        # A forward pass of a branch costs 1, a backward pass 2: (1 + 2^M) / 3 times plain; rows and Gramian add a bit.
        assert row["all"]["ratio"] == pytest.approx((1 + 2 ** row["modalities"]) / 3, rel=0.05)
    assert rows[-1]["random"]["ratio"] < rows[-1]["all"]["ratio"]


def test_without_matplotlib_the_figure_is_refused_in_one_line(tmp_path: Path):
    hidden = "import sys; sys.modules['matplotlib'] = None; sys.argv = ['modalities.py']; import modalities; "
    code = f"{hidden}modalities.draw([], 5, None)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, cwd=BENCHMARKS)
    assert done.returncode == 1
    assert done.stderr.splitlines() == ["--figure needs matplotlib, which is not installed: pip install matplotlib"]


@pytest.mark.slow
def test_a_step_of_methods_for_volumes_is_measured(tmp_path: Path):
    options = ("--small", "--patch", "16", "--steps", "1", "--only", "sharing", "uhemis", "rfnet")
    measured = run("methods.py", tmp_path / "methods.json", *options)
    results = {result["method"]: result for result in measured["results"]}
    assert set(results) == {"sharing", "uhemis", "rfnet"}
    for result in results.values():
        assert result["finite"]
        assert min(result["flops"], result["seconds"], result["parameters"]) > 0
        assert result["disagreement"] is None  # The CPU is what a GPU is compared with.
    assert results["uhemis"]["parameters"] < results["rfnet"]["parameters"]
