from collections.abc import Callable
from pathlib import Path
from statistics import fmean

import numpy as np
import pytest
from scipy import stats

from anysubset.errors import InputError
from anysubset.report.comparison import Comparison
from anysubset.report.differences import compare
from anysubset.report.groups import group_by_dataset
from anysubset.report.reading import read_results
from anysubset.scoring.statistics import Interval, holm, percentile_interval, resampled_means, t_interval

F, T, FT = ("flair",), ("t1",), ("flair", "t1")
Write = Callable[..., Path]
IDS = 12
NOISE = np.random.default_rng(5).normal(0, 0.02, (3, 4, IDS))


def dice(shift: float, seed: int = 0, share: int = 0) -> dict:
    """Scores of 12 samples in three scenarios; only those of t1 are shifted."""
    base = NOISE[:, seed] + np.array([0.5, 0.4, 0.7])[:, None] + 0.1 * NOISE[:, share]
    base[1] += shift
    return {scenario: {"WT": base[index].tolist()} for index, scenario in enumerate((F, T, FT))}


def comparison(*folders: Path, metric: str = "dice", region: str | None = None) -> Comparison:
    (group,) = group_by_dataset(result for folder in folders for result in read_results(folder, "test"))
    return Comparison(group, metric, region)


def bootstrap(differences: np.ndarray, draws: int) -> Interval:
    """Interval of the mean of differences, (samples,)."""
    return percentile_interval(differences.mean(), resampled_means(differences[:, None], draws=draws)[:, 0])


def test_lines_are_scenarios_then_means(volumes_run: Write):
    compared = comparison(volumes_run("a", dice(0)))
    assert [(line.cells, line.scenarios, line.family) for line in compared.lines] == [
        (("", "●", "○"), (F,), "scenario"),
        (("", "○", "●"), (T,), "scenario"),
        (("", "●", "●"), (FT,), "scenario"),
        (("1 missing", "", ""), (F, T), "missing"),
        (("0 missing", "", ""), (FT,), "missing"),
        (("all", "", ""), (F, T, FT), "all"),
    ]


def test_means_over_seeds(volumes_run: Write):
    values = {F: {"WT": [0.2]}, T: {"WT": [0.4]}, FT: {"WT": [0.9]}}
    more = {F: {"WT": [0.4]}, T: {"WT": [0.6]}, FT: {"WT": [0.8]}}
    compared = comparison(volumes_run("a", values, seed=0), volumes_run("b", more, seed=4))
    assert compared.by_seed("gmd") == {0: pytest.approx(0.5), 4: pytest.approx(0.6)}
    assert compared.by_seed("gmd", [F, T]) == {0: pytest.approx(0.3), 4: pytest.approx(0.5)}
    assert compared.over_seeds("gmd") == {F: pytest.approx(0.3), T: pytest.approx(0.5), FT: pytest.approx(0.85)}


def test_one_seed_by_its_bootstrap_and_signed_rank_tests(volumes_run: Write):
    reference, better = dice(0), dice(0.1, share=1)
    compared = comparison(volumes_run("a", reference, "sharing"), volumes_run("b", better))
    (method,) = compare(compared, "sharing", draws=500)
    lines = compare(compared, "sharing", draws=500)[method]
    # Samples are drawn in the order of their ids: p0, p1, p10, p11, p2, ..
    order = sorted(range(IDS), key=str)
    apart = {scenario: (np.array(better[scenario]["WT"]) - reference[scenario]["WT"])[order] for scenario in reference}
    p = holm([stats.wilcoxon(apart[scenario], method="exact").pvalue for scenario in (F, T, FT)])
    for index, scenario in enumerate((F, T, FT)):
        line = lines[index]
        assert line is not None
        assert line.samples == pytest.approx(bootstrap(apart[scenario], draws=500))
        assert (line.mean, line.p, line.seeds) == (pytest.approx(apart[scenario].mean()), pytest.approx(p[index]), None)
    assert [line.verdict for line in lines if line is not None][:3] == [
        "no difference shown",
        "better",
        "no difference shown",
    ]
    # The means by number of missing modalities are a separate family: of flair and t1, and of both.
    single, both, overall = lines[3:]
    assert single is not None
    assert both is not None
    assert overall is not None
    assert single.samples == pytest.approx(bootstrap((apart[F] + apart[T]) / 2, draws=500))
    mean = stats.wilcoxon((apart[F] + apart[T]) / 2, method="exact").pvalue
    assert [single.p, both.p] == pytest.approx(holm([mean, stats.wilcoxon(apart[FT], method="exact").pvalue]))
    assert overall.p == pytest.approx(stats.wilcoxon(sum(apart.values()), method="exact").pvalue)


def test_the_worse_method_is_called_worse(volumes_run: Write):
    compared = comparison(volumes_run("a", dice(0), "sharing"), volumes_run("b", dice(0.1, share=1)))
    line = compare(compared, "gmd", draws=200)["sharing"][1]
    assert line is not None
    assert (line.verdict, line.mean) == ("worse", pytest.approx(-0.1, abs=0.01))


def test_seeds_are_paired(volumes_run: Write):
    compared = comparison(
        *(volumes_run(f"a{seed}", dice(0, seed), "sharing", seed) for seed in (0, 1, 2)),
        *(volumes_run(f"b{seed}", dice(shift, seed, share=3), "gmd", seed) for seed, shift in enumerate((0.1, 0.2))),
    )
    line = compare(compared, "sharing", draws=200)["gmd"][1]
    assert line is not None
    gmd, sharing = compared.by_seed("gmd", [T]), compared.by_seed("sharing", [T])
    assert line.seeds == pytest.approx(t_interval([gmd[0] - sharing[0], gmd[1] - sharing[1]]))
    # The third seed of the reference has no counterpart: it enters neither interval.
    assert line.samples is not None
    assert line.mean == pytest.approx(0.15, abs=0.01) == line.samples.mean
    # The interval over samples excludes 0; the one over two seeds that differ by .1 does not.
    assert line.samples.low > 0 > line.seeds.low
    assert line.verdict == "no difference shown"


def test_samples_of_all_folds_are_pooled(volumes_run: Write):
    folders = []
    for fold in (0, 1):
        for method, shift in (("sharing", 0.0), ("gmd", 0.1 + fold / 10)):
            settings = {"data.folds": 3, "data.fold": fold}
            folder = volumes_run(f"{method}{fold}", dice(shift, fold, share=fold), method, fold, **settings)
            path = folder / "scores.csv"
            path.write_text(path.read_text().replace(",p", f",{fold}p"))
            folders.append(folder)
    compared = comparison(*folders)
    line = compare(compared, "sharing", draws=200)["gmd"][1]
    assert line is not None
    # Twelve samples gain .1, twelve others .2.
    gains = np.repeat([0.1, 0.2], IDS)
    assert line.mean == pytest.approx(0.15)
    assert line.samples == pytest.approx(bootstrap(gains, draws=200))
    assert line.p is not None
    assert line.p < 0.001


def test_the_holm_correction_covers_all_methods(volumes_run: Write):
    two = comparison(volumes_run("a", dice(0), "sharing"), volumes_run("b", dice(0.1, share=1)))
    three = comparison(
        volumes_run("c", dice(0), "sharing"),
        volumes_run("d", dice(0.1, share=1)),
        volumes_run("e", dice(0.2, share=2), "full"),
    )
    alone, among = (compare(methods, "sharing", draws=50)["gmd"] for methods in (two, three))
    assert alone[1] is not None
    assert among[1] is not None
    assert alone[5] is not None
    assert among[5] is not None
    # The least of 3 and of 6 p-values is 2 / 2^12 in both methods; the mean over all is one test, then one of 2.
    assert (alone[1].p, among[1].p) == (pytest.approx(3 * 2 / 2**12), pytest.approx(6 * 2 / 2**12))
    assert alone[5].p == pytest.approx(2 / 2**12)
    assert among[5].p == pytest.approx(2 * 2 / 2**12)


def test_groups_are_drawn_as_a_whole_and_tested_by_their_mean(volumes_run: Write):
    compared = comparison(volumes_run("a", dice(0), "sharing"), volumes_run("b", dice(0.1, share=1)))
    groups = {f"p{number}": f"video {number % 3}" for number in range(IDS)}
    line = compare(compared, "sharing", groups, draws=200)["gmd"][1]
    assert line is not None
    # Three groups, all above 0: p is 2 / 2^3, times three scenarios.
    assert (line.p, line.verdict) == (pytest.approx(0.75), "no difference shown")


def test_scenarios_with_fewer_samples_count_once_in_the_mean(volumes_run: Write):
    few, more = dice(0), dice(0.1, share=1)
    for table in (few, more):
        table[FT]["WT"] = table[FT]["WT"][:5]
    compared = comparison(volumes_run("a", few, "sharing"), volumes_run("b", more))
    lines = compare(compared, "sharing", draws=300)["gmd"]
    apart = np.array(more[FT]["WT"]) - few[FT]["WT"]
    assert lines[2] is not None
    assert lines[5] is not None
    assert lines[2].mean == pytest.approx(apart.mean())
    # A scenario counts once, whatever its number of samples.
    assert lines[5].mean == pytest.approx(
        np.mean([compared.over_seeds("gmd")[s] - compared.over_seeds("sharing")[s] for s in (F, T, FT)])
    )


def test_a_lower_error_is_better(table_run: Write):
    truth = [0.1 * number for number in range(10)]
    far = {scenario: [y + 0.5 + 0.01 * number for number, y in enumerate(truth)] for scenario in (F, T, FT)}
    near = {scenario: [y + 0.1 for y in truth] for scenario in (F, T, FT)}
    means = [
        {
            scenario: {"mae": fmean([abs(prediction - y) for prediction, y in zip(predictions, truth, strict=True)])}
            for scenario, predictions in table.items()
        }
        for table in (far, near)
    ]
    compared = comparison(
        table_run("a", far, truth, "sharing", over_set=means[0]),
        table_run("b", near, truth, over_set=means[1]),
        metric="mae",
    )
    line = compare(compared, "sharing", draws=200)["gmd"][0]
    assert line is not None
    assert (line.verdict, line.mean) == ("better", pytest.approx(-0.445))


def test_a_metric_over_the_set_is_tested_over_seeds(table_run: Write):
    truth, predictions = [1.0, -1.0], {F: [0.5, -0.5], T: [0.5, -0.5], FT: [0.5, -0.5]}
    correlations = {("sharing", 0): 0.5, ("sharing", 1): 0.5, ("gmd", 0): 0.6, ("gmd", 1): 0.62}
    compared = comparison(
        *(
            table_run(f"{method}{seed}", predictions, truth, method, seed, {s: {"corr": r} for s in (F, T, FT)})
            for (method, seed), r in correlations.items()
        ),
        metric="corr",
    )
    line = compare(compared, "sharing")["gmd"][0]
    assert line is not None
    # Differences .1 and .12: mean .11, standard error .01, t = 11 with one degree of freedom; three scenarios.
    assert line.samples is None
    assert line.seeds == pytest.approx(t_interval([0.1, 0.12]))
    assert line.p == pytest.approx(3 * 2 * stats.t.sf(11, 1))
    assert line.verdict == "no difference shown"


def test_without_any_test_there_is_no_verdict(table_run: Write):
    truth, predictions = [1.0, -1.0], {F: [0.5, -0.5], T: [0.5, -0.5], FT: [0.5, -0.5]}
    folders = [
        table_run(method, predictions, truth, method, over_set={scenario: {"corr": value} for scenario in (F, T)})
        for method, value in (("sharing", 0.5), ("gmd", 0.7))
    ]
    lines = compare(comparison(*folders, metric="corr"), "sharing")["gmd"]
    assert lines[0] is not None
    assert (lines[0].mean, lines[0].p, lines[0].verdict) == (pytest.approx(0.2), None, "")
    # The correlation is undefined for both modalities together, and so is every mean that includes it.
    assert (lines[2], lines[5]) == (None, None)


def test_an_unknown_reference_is_refused(volumes_run: Write):
    with pytest.raises(InputError, match=r"Unknown reference 'gdm'. Did you mean 'gmd'"):
        compare(comparison(volumes_run("a", dice(0))), "gdm")
