"""Published runs: scores of a sweep without weights, hashes of weights and names of places."""

import csv
from pathlib import Path

from anysubset.report.reading import read_results
from anysubset.system.run_folder import read_record
from benchmarks.publish import METRICS, publish


def test_a_published_run_has_the_scores_and_the_cost_of_the_run_and_names_no_place(scored_run: Path, tmp_path: Path):
    source = tmp_path / "sweep"
    (source / "0").mkdir(parents=True)
    (source / "0/gmd").symlink_to(scored_run)
    assert publish(source, tmp_path / "published") == 1
    copy = tmp_path / "published/0/gmd"
    assert {path.name for path in copy.iterdir()} == {"experiment.yaml", "cost.json", "scores.csv"}
    text = "".join(path.read_text() for path in copy.iterdir())
    assert str(tmp_path.parent) not in text and str(scored_run.parent) not in text
    (result,), (original,) = read_results(copy, "val"), read_results(scored_run, "val")
    assert result.caveats == ()
    with (copy / "scores.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert {row["metric"] for row in rows} <= set(METRICS) and {row["weights"] for row in rows} == {""}
    for key, by_scenario in result.sample_scores.items():
        for scenario, scores in by_scenario.items():
            for sample, value in scores.items():
                assert abs(value - original.sample_scores[key][scenario][sample]) <= 5e-6 * max(1, abs(value))
    record, whole = read_record(copy), read_record(scored_run)
    assert (record.parameters, record.steps, record.flops) == (whole.parameters, whole.steps, whole.flops)
