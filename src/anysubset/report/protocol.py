"""Notes on how scores came about: metric, selection of weights, seeds, settings that differ, statistical tests."""

from collections.abc import Callable, Mapping

from anysubset.report.comparison import Comparison
from anysubset.report.groups import BOOKKEEPING_SETTINGS, varies
from anysubset.report.results import Result
from anysubset.scoring.statistics import DRAWS

MAX_SETTINGS = 5  # So many differing settings are listed.

METRIC_DEFINITIONS: dict[str, str] = {
    "dice": "Dice of the predicted mask per patient on the whole volume, then the mean over patients; 1 if a region is "
    "empty in prediction and truth, 0 if it is empty in one of them.",
    "dice_nonempty": "Dice per patient on the whole volume of the regions that are not empty in the reference, then "
    "the mean over patients; a mean over regions is that over the non-empty regions of a patient.",
    "volume_error": "Volume error: absolute difference in ml between the volumes of the predicted region and of the "
    "reference per patient, then the mean; lower is better.",
    "hd95": "HD95: 95th percentile of the surface distances in mm per patient, then the mean; lower is better.",
    "ece": "ECE: expected calibration error, in ten bins, of the samples or of the voxels in the box around the head; "
    "lower is better.",
    "acc2": "Acc-2: accuracy of the sign (> 0 or not) on samples whose target is not 0.",
    "f1": "F1: of the sign (> 0 or not) on samples whose target is not 0; mean of both classes, weighted by true "
    "counts.",
    "acc2_zero": "Acc-2 has-zero: accuracy of negative against not negative (>= 0), on all samples.",
    "f1_zero": "F1 has-zero: of negative against not negative (>= 0) on all samples; mean of both classes, weighted by "
    "true counts.",
    "acc7": "Acc-7: accuracy after clipping to the range of the target and rounding, half to even.",
    "f1_predicted": "F1 by predicted counts: as F1, but classes are weighted by the counts of the predictions, as some "
    "released scorers do, which overrates constant predictions.",
    "f1_zero_predicted": "F1 has-zero by predicted counts: as F1 has-zero, but classes are weighted by the counts of "
    "the predictions, which overrates constant predictions.",
    "acc7_outward": "Acc-7 outward: accuracy after clipping to the range of the target and rounding away from zero.",
    "acc2_sims": "Acc-2 of CH-SIMS: accuracy of the sign (> 0 or not) on all samples.",
    "f1_sims": "F1 of CH-SIMS: of the sign (> 0 or not) on all samples; mean of both classes, weighted by true counts.",
    "f1_sims_predicted": "F1 of CH-SIMS by predicted counts: as F1 of CH-SIMS, but classes are weighted by the counts "
    "of the predictions, which overrates constant predictions.",
    "acc3": "Acc-3: accuracy of three classes, with cuts at -0.1 and 0.1.",
    "acc5": "Acc-5: accuracy of five classes, with cuts at -0.7, -0.1, 0.1 and 0.7.",
    "mae": "MAE: mean absolute error of the unclipped predictions; lower is better.",
    "corr": "Corr: Pearson's correlation of prediction and target.",
    "macro_f1": "Macro F1: mean F1 over the classes of the split.",
    "weighted_f1": "Weighted F1: mean F1 over the classes, weighted by true counts.",
    "loss": "Mean loss of the samples; lower is better.",
    "nll": "NLL: mean negative log-likelihood in nats of the voxels in the box around the head; lower is better.",
    "brier": "Brier score: squared distance of the probabilities from the truth; lower is better.",
}


def protocol(comparison: Comparison) -> list[str]:
    """Notes below a table: definition of the metric, selection of the weights, seeds, recipe, differing settings."""
    group = comparison.group
    selected_by = {result.selected_by for result in group.all_results}
    rule = "on validation, by a metric that the run did not record"
    if all(selected_by):
        rule = f"on validation, by the mean {' or '.join(sorted(selected_by))} over the scenarios"
    seeds_by_method = {method: ", ".join(map(str, by_seed)) for method, by_seed in group.results.items()}
    seeds = next(iter(seeds_by_method.values()))
    if len(set(seeds_by_method.values())) > 1:
        seeds = "; ".join(f"{method} {of_method}" for method, of_method in seeds_by_method.items())
    folds = fold_count(comparison)
    notes = [
        " ".join([METRIC_DEFINITIONS.get(comparison.metric, ""), f"Weights selected {rule}."]).strip(),
        f"Mean ± standard deviation over seeds{f', {folds}' if folds else ''}: {seeds}. {sample_counts(comparison)}",
    ]
    seen = seen_in_training(comparison)
    notes += [
        *empty_reference_notes(comparison),
        *threshold_rules(comparison),
        *size_rules(comparison),
        *([f"Seen in training: {'; '.join(seen)}."] if seen else []),
        *(f"Recipe: {line}." for line in recipes(comparison)),
    ]
    settings = differing_settings(comparison)
    if settings:
        notes.append(f"Settings that differ: {'; '.join(settings)}.")
    return notes + comparison.lacking_targets + comparison.group.caveats


def empty_reference_notes(comparison: Comparison) -> list[str]:
    """A note on the number of empty references by region, as a list; empty for tables and older scores."""
    counts: dict[str, int] = {}
    for result in comparison.group.one_per_fold:
        for region, count in result.empty_references.items():
            counts[region] = counts.get(region, 0) + count
    if not counts:
        return []
    counts_by_region = ", ".join(f"{region} {count}" for region, count in counts.items())
    return [f"Empty references: {counts_by_region} of {len(comparison.group.sample_ids)} patients."]


def of_methods(comparison: Comparison, describe: Callable[[Result], str], between: str = "; ") -> str:
    """What holds for the runs: one text if it is the same for all methods, else the text of each, such as `a (gmd)`.

    Args:
        comparison: of the methods.
        describe: from a run to its text.
        between: what separates the texts of a method whose runs differ.
    """
    by_method = {
        method: between.join(sorted({describe(result) for result in by_seed.values()}))
        for method, by_seed in comparison.group.results.items()
    }
    if len(set(by_method.values())) == 1:
        return next(iter(by_method.values()))
    return ", ".join(f"{text} ({method})" for method, text in by_method.items())


def threshold_rules(comparison: Comparison) -> list[str]:
    """A note on the probability above which a voxel belongs to a region, by method; empty if it is 1/2 everywhere."""
    rules = of_methods(comparison, threshold)
    return [] if rules == "0.5" else [f"Probability above which a voxel belongs to a region: {rules}."]


def threshold(result: Result) -> str:
    """The setting `task.threshold` of a run, such as `WT 0.4 and ET 0.55 chosen on validation`; `0.5` without it."""
    setting = result.settings.get("task.threshold", 0.5)
    by_region = setting if isinstance(setting, Mapping) else result.thresholds
    values = " and ".join(f"{region} {probability:g}" for region, probability in by_region.items())
    if isinstance(setting, str):
        return f"{values} chosen on validation".strip()
    return values or f"{setting:g}"


def size_rules(comparison: Comparison) -> list[str]:
    """A note on the predicted regions that were removed since they are small, by method; empty if none were."""
    rules = of_methods(comparison, voxel_counts)
    return [] if rules == "none" else [f"Regions with fewer voxels than this are removed: {rules}."]


def voxel_counts(result: Result) -> str:
    """The setting `task.smallest` of a run, such as `ET 500`; `none` without it."""
    smallest = result.settings.get("task.smallest") or {}
    return " and ".join(f"{region} {count}" for region, count in smallest.items()) or "none"


def seen_in_training(comparison: Comparison) -> list[str]:
    """What methods see in training, and their number of models: a line for all that agree; empty if none is known."""
    methods_by_text: dict[str, list[str]] = {}
    for method, by_seed in comparison.group.results.items():
        texts = dict.fromkeys(training_text(result) for result in by_seed.values())
        methods_by_text.setdefault(" or ".join(texts), []).append(method)
    if set(methods_by_text) == {"not on record"}:
        return []
    return [f"{', '.join(methods)}: {text}" for text, methods in methods_by_text.items()]


def training_text(result: Result) -> str:
    """What a run saw in training, such as `the full scenario of complete samples, one model`; or `not on record`."""
    if not result.training:
        return "not on record"
    number, _, rest = str(result.training.get("models", "one")).partition(" ")
    models = f"{number} model{'' if number == 'one' else 's'} {rest}".strip()
    return (
        f"{result.training.get('sees', '')}{' of complete samples' * bool(result.training.get('complete'))}, {models}"
    )


def recipes(comparison: Comparison) -> list[str]:
    """One line with the recipe of the runs, as a list; an empty list if no run was trained by a recipe.

    If the methods were trained by different recipes, the line has the recipe of each method. A run without a recipe
    counts as `none`.
    """
    line = of_methods(comparison, lambda result: str(result.settings.get("recipe") or "none"), " and ")
    return [] if line == "none" else [line]


def fold_count(comparison: Comparison) -> str:
    """`n of k folds` for a cross-validation, otherwise empty."""
    folds = [result.fold for result in comparison.group.one_per_fold if result.fold is not None]
    return f"{len(folds)} of {folds[0][1]} folds" if folds else ""


def sample_counts(comparison: Comparison) -> str:
    """Sentence on the number of samples per scenario."""
    counts = {len(ids) for result in comparison.group.one_per_fold for ids in result.ids_by_scenario.values()}
    if len(counts) == 1:
        count = counts.pop()
        return f"{count} sample{'s' if count != 1 else ''} in every scenario."
    return f"A scenario is scored on the samples that have its modalities: {min(counts)} to {max(counts)} samples."


def differing_settings(comparison: Comparison) -> list[str]:
    """Settings other than `method.*` in which runs differ: at most MAX_SETTINGS, and how many more there are.

    Settings that are part of the labels of the methods are left out.
    """
    settings = [result.settings for result in comparison.group.all_results]
    names = dict.fromkeys(name for of_run in settings for name in of_run)
    labels = " ".join(comparison.methods)
    differing = [
        name
        for name in names
        if name not in BOOKKEEPING_SETTINGS
        and not name.startswith("method.")
        and f" {name}=" not in labels
        and varies(name, settings)
    ]
    lines = []
    for name in differing:
        by_method = {
            method: " and ".join(sorted({str(result.settings.get(name)) for result in by_seed.values()}))
            for method, by_seed in comparison.group.results.items()
        }
        lines.append(f"{name} " + ", ".join(f"{value} ({method})" for method, value in by_method.items()))
    more = len(lines) - MAX_SETTINGS
    return [*lines[:MAX_SETTINGS], f"and {more} more"] if more > 0 else lines


def statistics_notes(comparison: Comparison, reference: str, grouped: bool) -> list[str]:
    """Notes on the statistical tests behind the verdicts. grouped: samples were drawn and tested by group."""
    unit = "groups" if grouped else "samples"
    several_seeds = any(len(by_seed) > 1 for by_seed in comparison.group.results.values())
    by_sample = all(comparison.scores_by_sample(result) is not None for result in comparison.group.all_results)
    tests = (
        f"Over samples: paired bootstrap over {unit} with {DRAWS:,} draws, of the scores averaged over the seeds; "
        f"p: Wilcoxon signed-rank test over {unit}, with Holm correction in three families of tests, each over all "
        "methods: single scenarios, means by number of missing modalities, and the mean over all scenarios."
        if by_sample
        else "The metric is not defined for a single sample: p is that of the paired t-test over seeds, with Holm "
        "correction."
    )
    rule = (
        "Over seeds: differences paired by seed, Student's t interval. A method is called better or worse only if "
        "every interval excludes 0 and p is below .05."
        if several_seeds
        else "One seed per method, so the variation over seeds is unknown. A method is called better or worse only if "
        "the interval excludes 0 and p is below .05."
    )
    return [f"Reference: {reference}. {tests}", rule]
