"""Read the `scores.csv` of run folders; needs neither data nor weights."""

import math
import os
from collections.abc import Iterable, Mapping, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

from anysubset.errors import InputError
from anysubset.experiments.files import read_run_experiment
from anysubset.report.provenance import caveats_of, stamps
from anysubset.report.results import SAMPLE_VALUES, Result
from anysubset.scenarios import Scenario
from anysubset.scoring.scores import ALL, of_scenarios, read_rows
from anysubset.system.input_files import read_json
from anysubset.system.run_files import BEST, KNOWLEDGE, ORIGIN
from anysubset.system.run_folder import RunFolder
from anysubset.system.schema import check
from anysubset.system.tensor_file import read_facts

# Data sets whose name does not say which data they hold; the name of the file is added to it.
GENERIC_DATASETS = ("volumes", "table")


def find_runs(paths: Iterable[Path]) -> tuple[list[Path], list[Path]]:
    """Run folders with scores and run folders without, among these folders or at any depth below them.

    Raises:
        InputError: if a folder does not exist, is a run without scores, or contains no run with scores.
    """
    scored: list[Path] = []
    unscored: list[Path] = []
    for path in paths:
        if not path.is_dir():
            raise InputError(f"There is no run folder {path}.")
        if os.path.lexists(RunFolder(path).scores):
            scored.append(path)
            continue
        if RunFolder(path).experiment.is_file():
            raise InputError(f"{path} has no scores yet; write them with: anysubset evaluate {path}")
        below = sorted(file.parent for file in path.rglob("scores.csv"))
        if not below:
            raise InputError(f"{path} contains no run with scores; `anysubset evaluate RUN` writes them.")
        scored += below
        unscored += sorted(file.parent for file in path.rglob("experiment.yaml") if file.parent not in below)
    # A run named twice, perhaps by two spellings of its path, is read once.
    first_spelling = {path.resolve(): path for path in reversed(scored)}
    return [path for path in dict.fromkeys(scored) if first_spelling[path.resolve()] == path], unscored


def read_results(folder: Path, split: str) -> list[Result]:
    """Read the scores of a run on a split: one result for each data set on which it was scored.

    Rows of random missingness follow another protocol and are left out.

    Raises:
        InputError: if the run has no scores of the split, or a file is damaged.
    """
    run = RunFolder(folder)
    path = run.scores
    rows = of_scenarios(read_rows(path))
    of_split = [row for row in rows if row["split"] == split]
    if not of_split:
        splits = ", ".join(sorted({row["split"] for row in rows})) or "none"
        raise InputError(f"{path} has no scores of split {split!r}, only of: {splits}.")
    settings = read_run_experiment(folder).flat() if run.experiment.is_file() else {}
    selected = read_facts(run.best, BEST)
    signature = read_facts(run.signature, KNOWLEDGE)
    # The sort is stable, so regions and samples stay in the order of the file.
    of_split.sort(key=lambda row: row["dataset"])
    return [
        result_of(folder, dataset, list(of_dataset), settings, selected, signature)
        for dataset, of_dataset in groupby(of_split, key=lambda row: row["dataset"])
    ]


def result_of(
    folder: Path,
    dataset: str,
    rows: Sequence[Mapping[str, str]],
    settings: Mapping[str, Any],
    selected: Mapping[str, Any],
    signature: Mapping[str, Any],
) -> Result:
    """Result from the rows of one data set and split.

    Args:
        folder: of the run.
        dataset: its name in the rows.
        rows: of `scores.csv`.
        settings: of the experiment by dotted name.
        selected: facts of the selected weights.
        signature: of the table that the run was trained on.

    Raises:
        InputError: if the rows are of several methods or seeds, or do not fit together.
    """
    sample_scores: dict[tuple[str, str], dict[Scenario, dict[str, float]]] = {}
    set_scores: dict[str, dict[Scenario, float]] = {}
    missing_counts: dict[Scenario, int] = {}
    for row in rows:
        scenario = tuple(row["scenario"].split("+"))
        value, missing_counts[scenario] = float(row["value"]), int(row["n_missing"])
        if not math.isfinite(value):
            cells = [cell[:40] for cell in row.values()]
            raise InputError(f"{folder / 'scores.csv'} is damaged: {cells} has no valid score.")
        if row["sample"] == ALL:
            if row["region"] == ALL:  # Numbers of empty references are counted from the samples.
                set_scores.setdefault(row["metric"], {})[scenario] = value
        else:
            by_scenario = sample_scores.setdefault((row["metric"], row["region"]), {})
            by_scenario.setdefault(scenario, {})[row["sample"]] = value
    runs = {(row["method"], row["seed"]) for row in rows}
    if len(runs) > 1 or not sample_scores or not all(map(all, runs)):
        raise InputError(f"{folder / 'scores.csv'} is damaged: it must hold samples of one method and seed.")
    ((method, seed),) = runs
    check_together(folder / "scores.csv", missing_counts, sample_scores)
    if dataset in GENERIC_DATASETS and "data.root" in settings:
        dataset = f"{dataset} {Path(settings['data.root']).name}"
    if settings.get("data.missingness") is not None:
        dataset += f", missingness {missingness_origin(Path(settings['data.missingness']))}"
    return Result(
        folder=folder,
        method=method,
        seed=int(seed),
        dataset=dataset,
        split=rows[0]["split"],
        modalities=modalities_of(missing_counts),
        sample_scores=sample_scores,
        set_scores=set_scores,
        settings=settings,
        selected_by=str(selected.get("metric", "")),
        thresholds=selected.get("thresholds", {}),
        training=selected.get("training", {}),
        signature=signature,
        caveats=caveats_of(folder, rows, settings.get("data.name", rows[0]["dataset"])),
        data="+".join(sorted(stamps(rows, "data"))),
    )


def check_together(
    path: Path,
    missing_counts: Mapping[Scenario, int],
    sample_scores: Mapping[tuple[str, str], Mapping[Scenario, Mapping[str, float]]],
) -> None:
    """Check that the rows of one data set and split fit together.

    Args:
        path: of the file.
        missing_counts: number of missing modalities by scenario.
        sample_scores: by (metric, region), then by scenario and sample.

    Raises:
        InputError: if scenarios have different numbers of modalities in all, or a value of a sample lacks a region or
            another value that is always written with it.
    """
    totals = {len(scenario) + count for scenario, count in missing_counts.items()}
    names = {name for scenario in missing_counts for name in scenario}
    if len(totals) > 1 or len(names) > max(totals):
        raise InputError(f"{path} is damaged: n_missing does not fit the scenarios; score the run again.")
    ids = {key: {scenario: set(of) for scenario, of in by.items()} for key, by in sample_scores.items()}
    of_table = ("target", ALL) in ids  # All values of a sample of a table are written together.
    groups: dict[str, dict[str, Mapping[Scenario, set[str]]]] = {}
    for (metric, region), samples in ids.items():
        if metric == "dice_nonempty":  # Samples lack the regions whose reference is empty.
            continue
        together = of_table or metric in SAMPLE_VALUES
        groups.setdefault("" if together else metric, {})[f"{metric} {region}"] = samples
    for members in groups.values():
        first, *others = members
        for other in others:
            if members[other] != members[first]:
                raise InputError(
                    f"{path} is damaged: {first[:40]} and {other[:40]} are not of the same samples; score the run "
                    "again."
                )


def modalities_of(missing_counts: Mapping[Scenario, int]) -> Scenario:
    """Modalities in the order of the task, from the number of missing modalities of each scenario."""
    complete = [scenario for scenario, count in missing_counts.items() if count == 0]
    # If no sample has all modalities: scenarios of one modality come in the order of the task.
    return complete[0] if complete else tuple(dict.fromkeys(name for scenario in missing_counts for name in scenario))


def missingness_origin(path: Path) -> str:
    """Split and pattern from which a missingness file was drawn, without the seed; else the name of the file."""
    try:
        content = read_json(path)
        check(content, ORIGIN, str(path))
        return f"in {content['split']}: {content['how']}"
    except InputError:  # Written by hand, or elsewhere.
        return path.name
