"""Measure conflict between the case gradients of a trained run."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from anysubset.datasets.table import create_dataset
from anysubset.errors import InputError
from anysubset.report.diagnostics import diagnosis, history_of
from anysubset.scenarios import case_sampler
from anysubset.system.files import atomic_write
from anysubset.system.model_file import is_model_file
from anysubset.system.numbers import check_count
from anysubset.system.run_folder import RunFolder
from anysubset.system.written import check_replaceable
from anysubset.training.conflict import Conflict
from anysubset.training.diagnose import check_shared
from anysubset.training.diagnose import diagnose as measure
from anysubset.workflows.arguments import FilePath, OwnMethod, OwnNetwork, Progress, Report
from anysubset.workflows.recorded_data import check_unchanged
from anysubset.workflows.trained import open_run

MOST_BATCHES = 1_000_000
DIAGNOSE = "anysubset diagnose"  # Writes diagnosis.json.


def diagnose_run(
    run: FilePath,
    split: str,
    batches: int,
    cases: str,
    method: OwnMethod,
    network: OwnNetwork,
    device: str,
    report: Report,
    progress: Progress,
) -> dict[str, Any]:
    """Measure conflict on some batches; see `api.diagnose`."""
    check_count("The number of batches", batches, 1, MOST_BATCHES)
    folder = Path(run)
    if is_model_file(folder):
        raise InputError(f"{folder} is a model file, without the data of the training: diagnose the run folder.")
    trained = open_run(run, method=method, network=network, device=device)
    check_replaceable(RunFolder(folder).diagnosis, DIAGNOSE)
    check_shared(trained.method)
    experiment = trained.experiment
    sampler = case_sampler(trained.task.modalities, cases)
    dataset = create_dataset(experiment.data, experiment.task, report, trained.signature)
    dataset.check_trained()
    check_unchanged(folder, dataset)
    samples, parts = len(dataset.ids(split)), experiment.train.micro_batches
    unit = trained.method.unit
    drawn = dataset.training_batches(split, experiment.train.batch, experiment.seed, 0, batches, parts, unit)
    grouped = ([next(drawn) for _ in range(parts)] for _ in range(batches))
    chosen = sampler(torch.Generator().manual_seed(experiment.seed))
    measured = measure(trained.method, progress(grouped, "Measuring", batches), chosen)
    result = {
        "run": folder.name,
        "method": experiment.method["name"],
        "seed": experiment.seed,
        "split": split,
        "step": trained.facts["step"],
        **diagnosis(folder, history_of(measured.arrays())),
        # Batches of a smaller split overlap, so they show less noise than independent ones.
        "noise": compared(measured.conflict) if samples >= 2 * experiment.train.batch else None,
    }
    with atomic_write(RunFolder(folder).diagnosis, DIAGNOSE) as temporary:
        temporary.write_text(json.dumps(result, indent=1, allow_nan=False) + "\n", encoding="utf-8")
    report(f"split {split!r}, {samples} {dataset.noun}, {batches} batches")
    return result


def compared(conflict: Conflict | None) -> dict[str, Any] | None:
    """Conflict and noise for JSON; `clear` is whether decoupling can be expected to matter."""
    return None if conflict is None else {**asdict(conflict), "clear": conflict.clear}
