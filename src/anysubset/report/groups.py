"""Group runs that can be compared in one table: by data set, then by method and seed."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from anysubset.errors import InputError
from anysubset.report.provenance import first_lines, mixed_data
from anysubset.report.results import Result

# Settings that say where a run lies and which repetition it is. They distinguish no methods; `data.missingness` is
# part of the name of the data set.
BOOKKEEPING_SETTINGS = (
    "seed", "data.fold", "data.root", "data.splits", "data.missingness", "data.cache", "data.workers", "train.device",
    "train.checkpoint_every", "train.log_every",
)  # fmt: skip


@dataclass(frozen=True, eq=False)
class RunGroup:
    """Runs of one data set that can be compared: by the label of the method in the tables, then by seed."""

    results: Mapping[str, Mapping[int, Result]]

    @cached_property
    def first(self) -> Result:
        """One of the results, for what they have in common."""
        return next(result for by_seed in self.results.values() for result in by_seed.values())

    @property
    def all_results(self) -> list[Result]:
        """Results of all methods and seeds."""
        return [result for by_seed in self.results.values() for result in by_seed.values()]

    @cached_property
    def one_per_fold(self) -> list[Result]:
        """One result per fold of a cross-validation; a single result without cross-validation."""
        return list({result.fold: result for result in reversed(self.all_results)}.values())[::-1]

    @property
    def overlap(self) -> float:
        """Test samples per training sample if the seeds are folds of a cross-validation, else 0."""
        folds = [result.fold for result in self.one_per_fold if result.fold is not None]
        return 1 / (folds[0][1] - 1) if len(folds) > 1 else 0.0

    @cached_property
    def sample_ids(self) -> list[str]:
        """Sorted ids of the scored samples of all folds."""
        return sorted({sample for result in self.one_per_fold for sample in result.sample_ids})

    @property
    def caveats(self) -> list[str]:
        """Lines on scores that are older than the weights of their run, or of data that differ."""
        lines = [line for result in self.all_results for line in result.caveats]
        for fold in dict.fromkeys(result.fold for result in self.all_results):
            lines += mixed_data({result.folder: result.data for result in self.all_results if result.fold == fold})
        return first_lines(lines)

    def labels_of_method(self, name: str) -> list[str]:
        """Labels of the runs of a method; several if its runs differ in settings."""
        return [label for label, by_seed in self.results.items() if next(iter(by_seed.values())).method == name]


def group_by_dataset(results: Iterable[Result]) -> list[RunGroup]:
    """Group results by data set, and in each data set by method and seed.

    Runs of one method with different settings get labels with these settings. The folds of a cross-validation form one
    group, each fold with its own seed.

    Raises:
        InputError: if runs of one data set and fold differ in samples, splits, modalities, scenarios or regions, if two
            share method, settings and seed, or if one seed stands for different folds.
    """
    by_dataset: dict[str, list[Result]] = {}
    for result in results:
        by_dataset.setdefault(result.dataset, []).append(result)
    return [group_by_method(of_dataset) for of_dataset in by_dataset.values()]


def group_by_method(results: Sequence[Result]) -> RunGroup:
    """Group the results of one data set by method and seed. Raises InputError as `group_by_dataset`."""
    first_of_fold: dict[tuple[int, int] | None, Result] = {}
    first_of_seed: dict[int, Result] = {}
    for result in results:
        check_comparable(results[0], result)
        check_comparable(first_of_fold.setdefault(result.fold, result), result)
        same_seed = first_of_seed.setdefault(result.seed, result)
        if same_seed.fold != result.fold:
            raise InputError(
                f"{same_seed.folder} and {result.folder} have the same seed {result.seed} but different folds; methods "
                "are compared seed by seed, so train each fold with its own seed."
            )
    by_label: dict[str, dict[int, Result]] = {}
    for result, label in zip(results, method_labels(results), strict=True):
        by_seed = by_label.setdefault(label, {})
        if result.seed in by_seed:
            raise InputError(
                f"{by_seed[result.seed].folder} and {result.folder} are both {label} with seed {result.seed}; "
                "leave one out."
            )
        by_seed[result.seed] = result
    return RunGroup({label: dict(sorted(by_seed.items())) for label, by_seed in by_label.items()})


def check_comparable(one: Result, other: Result) -> None:
    """Raise InputError, naming the differences, if two runs of one data set cannot be compared in one table."""
    fingerprints = [result.signature.get("fingerprints", {}) for result in (one, other)]
    # Under `data.complete_only`, the training samples depend on the missingness, so only validation must agree.
    complete_only = any(result.settings.get("data.complete_only") for result in (one, other))
    trained_on = [(None if complete_only else hashes.get("train"), hashes.get("val")) for hashes in fingerprints]
    fold_counts = [result.settings.get("data.folds") for result in (one, other)]
    differs = {
        "modalities": one.modalities != other.modalities,
        "regions": all_regions(one) != all_regions(other),
        "scenarios": one.scenarios != other.scenarios,
        "number of folds": fold_counts[0] != fold_counts[1],
    }
    if one.fold == other.fold:
        differs[f"samples of split {one.split!r}"] = one.ids_by_scenario != other.ids_by_scenario
        differs["training and validation splits"] = trained_on[0] != trained_on[1]
    differences = [name for name, is_different in differs.items() if is_different]
    if differences:
        raise InputError(
            f"{one.folder} and {other.folder} are both of {one.dataset}, but differ in {', '.join(differences)}; "
            "compare them separately."
        )


def all_regions(result: Result) -> set[str]:
    """Regions of all metrics."""
    return {region for _, region in result.sample_scores}


def method_labels(results: Sequence[Result]) -> list[str]:
    """Label of each result: its method, and as many settings as are needed to distinguish runs of that method.

    A setting left at its default is not shown.
    """
    labels = [result.method for result in results]
    names = dict.fromkeys(name for result in results for name in result.settings if name not in BOOKKEEPING_SETTINGS)
    # Settings of the method first: they describe the difference best.
    for name in sorted(names, key=lambda name: not name.startswith("method.")):
        for label in dict.fromkeys(labels):
            same_label = [index for index, other in enumerate(labels) if other == label]
            if varies(name, [results[index].settings for index in same_label]):
                values = [results[index].settings.get(name) for index in same_label]
                for index, value, text in zip(same_label, values, setting_texts(values), strict=True):
                    if value is not None:
                        labels[index] += f" {name.removeprefix('method.')}={text}"
    return labels


def varies(name: str, settings: Sequence[Mapping[str, Any]]) -> bool:
    """True if a setting has several values among runs."""
    return len({repr(of_run.get(name)) for of_run in settings}) > 1


def setting_texts(values: Sequence[Any]) -> list[str]:
    """Values of a setting as text; parts of a blend by their names alone where that tells them apart.

    >>> setting_texts([["sharing", "ensemble"], [{"name": "sharing", "width": 8}, "sharing"]])
    ['sharing+ensemble', 'sharing+sharing']
    """
    names = [names_of(value) for value in values]
    return names if len(set(names)) == len(set(map(repr, values))) else list(map(str, values))


def names_of(value: Any) -> str:
    """A value as text: of a list its items with + between them, of a mapping with a name this name."""
    if isinstance(value, Mapping) and "name" in value:
        return str(value["name"])
    return "+".join(map(names_of, value)) if isinstance(value, list) else str(value)
