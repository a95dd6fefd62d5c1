"""The Dice to expect of a prediction: that of the validation patients in the same scenario."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean

import numpy as np

from anysubset.datasets.scans import scans_of_patients
from anysubset.scenarios import Scenario, scenario_name
from anysubset.scoring.scores import read_rows
from anysubset.scoring.statistics import Interval, percentile_interval, resampled_means
from anysubset.system.run_folder import RunFolder

# Dice by scenario, patient and region.
PatientDice = Mapping[str, Mapping[str, Mapping[str, float]]]


@dataclass(frozen=True)
class ExpectedDice:
    """Mean Dice of n validation patients, over all regions and by region, with its 95 % interval.

    The limits are NaN of a single patient.
    """

    n: int
    mean: Interval
    regions: Mapping[str, Interval]


def validation_dice(run: Path, dataset: str, weights: str) -> PatientDice:
    """The Dice of every validation patient in `scores.csv` of a run; empty if the split was not scored.

    Args:
        run: its folder.
        dataset: name of its data set.
        weights: hash of its weights; scores of other weights are left out.

    Raises:
        InputError: if the file is damaged.
    """
    path = RunFolder(run).scores
    scores: dict[str, dict[str, dict[str, float]]] = {}
    for row in read_rows(path) if path.exists() else []:
        own = (row["dataset"], row["split"], row["weights"], row["metric"]) == (dataset, "val", weights, "dice")
        if own:
            of_scenario = scores.setdefault(row["scenario"], {})
            of_scenario.setdefault(row["sample"], {})[row["region"]] = float(row["value"])
    return scores


def expected_dice(runs: Sequence[PatientDice], scenario: Scenario, regions: Sequence[str]) -> ExpectedDice | None:
    """The Dice to expect in a scenario; None if no validation patient was scored in it.

    The interval is a bootstrap over patients (scans of one patient stay together). Several runs may have other
    validation patients, as folds have: a patient counts once, with the mean over the runs that scored it. So it is the
    Dice of one run; that of their average was not measured.

    Args:
        runs: `validation_dice` of each run.
        scenario: the modalities of the prediction.
        regions: of the task.
    """
    name = scenario_name(scenario)
    patients = list(dict.fromkeys(patient for run in runs for patient in run.get(name, {})))
    if not patients:
        return None
    values = np.array(
        [
            [fmean(run[name][patient][region] for run in runs if patient in run.get(name, {})) for region in regions]
            for patient in patients
        ]
    )
    columns = np.column_stack([values, values.mean(axis=1)])
    means = columns.mean(axis=0).tolist()
    if len(patients) == 1:
        intervals = [Interval(mean, math.nan, math.nan) for mean in means]
    else:
        groups = scans_of_patients(patients)
        drawn = resampled_means(columns, None if groups is None else [groups[patient] for patient in patients])
        intervals = [percentile_interval(mean, column) for mean, column in zip(means, drawn.T, strict=True)]
    return ExpectedDice(len(patients), intervals[-1], dict(zip(regions, intervals, strict=False)))
