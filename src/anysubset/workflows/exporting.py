"""Write the trained model of a run into one file that can be handed over without its data."""

import json
import shutil
import tempfile
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from anysubset import __version__
from anysubset.datasets.scans import scans_of_patients
from anysubset.errors import InputError
from anysubset.evaluation.expected_dice import PatientDice, validation_dice
from anysubset.experiments.files import read_run_experiment, write_experiment
from anysubset.experiments.settings import Experiment
from anysubset.methods.table import METHODS
from anysubset.report.model_card import LICENCE as LICENCE_NOTE
from anysubset.report.model_card import model_card
from anysubset.report.model_facts import SPLITS, samples_by_modalities, scores_by_scenario, validation_scores
from anysubset.scenarios import Scenario
from anysubset.scoring.scores import Score, write_scores
from anysubset.system import tensor_file
from anysubset.system.model_file import ABOUT, CARD, LICENCE, VERSION, is_model_file, write_model_file
from anysubset.system.run_files import KNOWLEDGE, LATEST, SELECTED
from anysubset.system.run_folder import RunFolder, parameters_in, weights_hash
from anysubset.system.written import check_free
from anysubset.tasks.segmentation import Segmentation
from anysubset.workflows.arguments import FilePath, OwnMethod, OwnNetwork, Report
from anysubset.workflows.trained import Trained, open_run


def export_run(
    run: FilePath,
    output: FilePath,
    dataset: str | None,
    method: OwnMethod,
    network: OwnNetwork,
    report: Report,
) -> Path:
    """Write the model file of a run; see `anysubset.api.export`."""
    folder, path = Path(run), Path(output)
    check_free(path)
    check_finished(folder, report)
    trained = open_run(folder, method=method, network=network, device="cpu")
    experiment = portable(folder)
    about = facts_of(folder, trained, dataset or experiment.data.name, report)
    with tempfile.TemporaryDirectory(prefix="anysubset-") as name:
        files = write_run_files(RunFolder(folder), RunFolder(Path(name)), experiment, trained.task.modalities)
        texts = {ABOUT: json.dumps(about, indent=1) + "\n", CARD: model_card(about), LICENCE: LICENCE_NOTE}
        write_model_file(path, {**texts, **files})
    report(f"{path}: {trained.experiment.method['name']}, {about['parameters']:,} parameters")
    return path


def check_finished(folder: Path, report: Report) -> None:
    """Raise InputError for a model file, and for a run whose training has not come to its end."""
    if is_model_file(folder):
        raise InputError(f"{folder} is a model file already: copy it, or export the run folder.")
    latest = RunFolder(folder).latest
    progress = tensor_file.read_facts(latest, LATEST)
    if RunFolder(folder).experiment.is_file() and not progress:
        report(f"note: {folder} has no {latest.name}, so it is unknown whether its training came to its end")
    if progress and not progress["finished"]:
        raise InputError(
            f"{folder} is not finished (step {progress['step']:,}): continue it with `anysubset fit ... --resume`."
        )


def portable(folder: Path) -> Experiment:
    """The settings of a run without names of files and folders. Raises InputError if it cannot do without them."""
    try:
        return read_run_experiment(folder).portable()
    except InputError as error:
        raise InputError(f"{folder} cannot be exported. {error}") from None


def write_run_files(
    source: RunFolder, target: RunFolder, experiment: Experiment, modalities: Scenario
) -> dict[str, Path]:
    """Write the files of a run that prediction needs, with the settings of `experiment`. Returns them by name."""
    target.best.parent.mkdir()
    write_experiment(experiment, target.experiment)
    tensors, facts = tensor_file.load(source.best, SELECTED)
    listed = {name: facts[name] for name in (*SELECTED.required, *SELECTED.optional) if name in facts}
    tensor_file.save(target.best, tensors, {**listed, "experiment": experiment.flat()})
    files = [target.experiment, target.best]
    if source.signature.is_file():
        tensors, facts = tensor_file.load(source.signature, KNOWLEDGE)
        tensor_file.save(target.signature, tensors, {name: facts[name] for name in KNOWLEDGE.optional if name in facts})
        files.append(target.signature)
    if source.training_set.is_file():
        shutil.copyfile(source.training_set, target.training_set)
        files.append(target.training_set)
    dataset = experiment.data.name
    expected = validation_dice(source.path, dataset, weights_hash(source.path))
    if expected:
        facts = {"run": "model", "dataset": dataset, "split": "val", "weights": weights_hash(target.path)}
        write_scores(target.scores, unnamed(expected), modalities, facts)
        files.append(target.scores)
    return {path.relative_to(target.path).as_posix(): path for path in files}


def unnamed(dice: PatientDice) -> Iterator[Score]:
    """The Dice of patients as scores, with numbers for names: `3`, or `3_scan2` for a further scan of a patient."""
    names = list(dict.fromkeys(patient for of_scenario in dice.values() for patient in of_scenario))
    patient_of = scans_of_patients(names) or {name: name for name in names}
    numbers: dict[str, int] = {}
    scans: Counter[int] = Counter()
    numbered = {}
    for name in names:
        number = numbers.setdefault(patient_of[name], len(numbers) + 1)
        scans[number] += 1
        numbered[name] = str(number) if scans[number] == 1 else f"{number}_scan{scans[number]}"
    for scenario, of_scenario in dice.items():
        for name, regions in of_scenario.items():
            for region, value in regions.items():
                yield Score(tuple(scenario.split("+")), numbered[name], "dice", region, value)


def facts_of(folder: Path, trained: Trained, dataset: str, report: Report) -> dict[str, Any]:
    """The content of `model.json`, which the model card is made from.

    Args:
        folder: of the run.
        trained: the run.
        dataset: its name for readers.
        report: gets a line on scores that the run lacks.
    """
    task, facts, experiment = trained.task, trained.facts, trained.experiment
    regions = task.regions if isinstance(task, Segmentation) else {}
    samples = samples_by_modalities(folder, task.modalities)
    scores = {split: of_split for split in SPLITS if (of_split := scores_by_scenario(folder, split)) is not None}
    for split in SPLITS:
        if split not in scores:
            report(f"note: no scores of split {split}; `anysubset evaluate {folder} --split {split}` adds them, with n")
    if "val" not in scores:
        scores = {"val": validation_scores(facts, samples.get("val", {})), **scores}
    return {
        "version": VERSION,
        "anysubset": __version__,
        "dataset": dataset,
        "noun": "patients" if regions else "samples",
        "modalities": list(task.modalities),
        "regions": {name: list(labels) for name, labels in regions.items()},
        "classes": [] if isinstance(task, Segmentation) else list(task.classes),
        "method": described_method(experiment.method),
        "parameters": parameters_in(RunFolder(folder).best),
        "seed": experiment.seed,
        "selection": {"metric": facts["metric"], "step": facts["step"]},
        "thresholds": dict(facts.get("thresholds", {})),
        "temperatures": dict(facts.get("temperatures", {})),
        "samples": samples,
        "scores": scores,
    }


def described_method(settings: Mapping[str, Any]) -> dict[str, str]:
    """Name, summary and source of the method of a run."""
    name = str(settings["name"])
    row = METHODS.get(name)
    summary, source = (row.summary, row.source) if row else ("a method of its own, in Python", "")
    if "network" in settings:
        summary = f"{summary}; with a network of its own, {settings['network']}"
    return {"name": name, "summary": summary, "source": source}
