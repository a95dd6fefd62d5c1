from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from anysubset.errors import InputError
from anysubset.report.comparison import Comparison
from anysubset.report.groups import RunGroup
from anysubset.report.protocol import protocol
from anysubset.report.reading import read_results
from anysubset.scoring.scores import Score, write_scores

F, T, FT = ("flair",), ("t1",), ("flair", "t1")
DICE = {
    F: {"WT": [0.2, 0.4], "ET": [0.0, 0.2]},
    T: {"WT": [0.6, 0.8], "ET": [0.2, 0.2]},
    FT: {"WT": [0.9, 0.7], "ET": [0.5, 0.9]},
}
Write = Callable[..., Path]


def test_scores_are_means_over_samples_and_regions(volumes_run: Write):
    (result,) = read_results(volumes_run("run", DICE, seed=3), "test")
    assert (result.method, result.seed, result.dataset, result.modalities) == ("gmd", 3, "brats", FT)
    assert (result.scenarios, result.sample_ids, result.selected_by) == ([F, T, FT], ["p0", "p1"], "dice")
    assert result.metrics == ["dice"]
    # By hand: (.2 + .4) / 2 and so on; the mean of both regions is that of (.1, .3), (.4, .5) and (.7, .8).
    assert result.scores("dice", "WT") == {F: pytest.approx(0.3), T: pytest.approx(0.7), FT: pytest.approx(0.8)}
    assert result.scores("dice") == {F: pytest.approx(0.2), T: pytest.approx(0.45), FT: pytest.approx(0.75)}
    by_sample = result.scores_by_sample("dice")
    assert by_sample is not None
    assert by_sample[F] == {"p0": pytest.approx(0.1), "p1": pytest.approx(0.3)}


def test_dice_of_non_empty_references_is_the_mean_over_the_regions_of_each_patient(volumes_run: Write):
    folder = volumes_run("run", {T: {"WT": [0.5, 1.0, 0.4], "ET": [0.3, 0.0, 1.0]}}, seed=3)
    # p1 and p2 have no ET in the reference; they are scored in WT alone, which for p2 is missing, too.
    dice = {("p0", "WT"): 0.5, ("p0", "ET"): 0.3, ("p1", "WT"): 1.0}
    scores = [Score(T, sample, "dice_nonempty", region, value) for (sample, region), value in dice.items()]
    scores += [Score(T, f"p{index}", "volume_error", region, 2.0) for index in range(3) for region in ("WT", "ET")]
    scores += [Score(T, "all", "empty_references", region, float(count)) for region, count in (("WT", 1), ("ET", 2))]
    facts = {"run": "b", "method": "gmd", "seed": 3, "dataset": "brats", "split": "test"}
    write_scores(folder / "scores.csv", scores, T, facts)
    (result,) = read_results(folder, "test")
    assert result.metrics == ["dice", "dice_nonempty", "volume_error"]
    assert result.scores_by_sample("dice_nonempty") == {T: {"p0": pytest.approx(0.4), "p1": 1.0}}
    # By hand: (.4 + 1) / 2; of WT alone (.5 + 1) / 2; of ET alone .3.
    assert result.scores("dice_nonempty") == {T: pytest.approx(0.7)}
    assert result.scores("dice_nonempty", "WT") == {T: pytest.approx(0.75)}
    assert result.scores("dice_nonempty", "ET") == {T: pytest.approx(0.3)}
    assert result.empty_references == {"WT": 1, "ET": 2}
    group = RunGroup({"gmd": {3: result}})
    assert "Empty references: WT 1, ET 2 of 3 patients." in protocol(Comparison(group, "dice"))
    assert not Comparison(group, "volume_error").higher_is_better
    assert Comparison(group, "dice_nonempty").scores == {"gmd": {3: {T: pytest.approx(0.7)}}}


def test_the_size_rule_of_prediction_stands_in_the_protocol(volumes_run: Write):
    runs = {"a": {}, "b": {"task.smallest": {"ET": 500}}}
    results = {name: read_results(volumes_run(name, DICE, **settings), "test")[0] for name, settings in runs.items()}
    notes = {
        which: [line for line in protocol(Comparison(RunGroup(group), "dice")) if "are removed" in line]
        for which, group in {
            "neither": {"a": {0: results["a"]}},
            "same": {"b": {0: results["b"]}},
            "differ": {name: {0: result} for name, result in results.items()},
        }.items()
    }
    rule = "Regions with fewer voxels than this are removed: "
    assert notes == {"neither": [], "same": [f"{rule}ET 500."], "differ": [f"{rule}none (a), ET 500 (b)."]}


def test_the_thresholds_of_prediction_stand_in_the_protocol(volumes_run: Write):
    settings = {"a": {}, "b": {"task.threshold": 0.4}, "c": {"task.threshold": "validated"}}
    results = {name: read_results(volumes_run(name, DICE, **own), "test")[0] for name, own in settings.items()}
    results["c"] = replace(results["c"], thresholds={"WT": 0.35, "ET": 0.5})

    def note(*names: str) -> list[str]:
        group = RunGroup({name: {0: results[name]} for name in names})
        return [line for line in protocol(Comparison(group, "dice")) if "belongs to a region" in line]

    rule = "Probability above which a voxel belongs to a region: "
    assert note("a") == []
    assert note("b") == [f"{rule}0.4."]
    assert note("a", "c") == [f"{rule}0.5 (a), WT 0.35 and ET 0.5 chosen on validation (c)."]


def test_what_methods_see_in_training_stands_in_the_protocol(volumes_run: Write):
    (run,) = read_results(volumes_run("run", DICE), "test")
    every = {"sees": "every scenario", "complete": False, "models": "one"}
    pairs = {"sees": "one incomplete scenario per step", "complete": True, "models": "two per incomplete scenario"}
    seen = {"gmd": every, "acn": pairs, "sharing": every, "own": {}}
    results = {name: {0: replace(run, training=training)} for name, training in seen.items()}
    notes = protocol(Comparison(RunGroup(results), "dice"))
    assert (
        "Seen in training: gmd, sharing: every scenario, one model; acn: one incomplete scenario per step of complete "
        "samples, two models per incomplete scenario; own: not on record." in notes
    )
    only_own = protocol(Comparison(RunGroup({"own": results["own"]}), "dice"))
    assert not [line for line in only_own if line.startswith("Seen")]


def test_unknown_metrics_and_regions_are_refused(volumes_run: Write):
    (result,) = read_results(volumes_run("run", DICE), "test")
    with pytest.raises(InputError, match=r"Unknown metric 'dise'\. Did you mean 'dice'"):
        result.scores("dise")
    with pytest.raises(InputError, match=r"Unknown region 'TC'.*WT, ET"):
        result.scores("dice", "TC")


def test_scores_without_a_metric_to_compare_are_refused(volumes_run: Write):
    (result,) = read_results(volumes_run("run", DICE), "test")
    assert result.default_metric == "dice"
    only_errors = replace(result, sample_scores={("error", "all"): {F: {"p0": 0.5}}})
    with pytest.raises(
        InputError, match=r"run hold no metric to compare, such as dice, acc2, acc2_sims, accuracy, mae\.$"
    ):
        _ = only_errors.default_metric
