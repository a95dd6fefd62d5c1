"""`anysubset predict`: answers from whatever there is."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import jsonargparse

from anysubset.commands.given import Given
from anysubset.commands.progress import track
from anysubset.commands.terminal import say
from anysubset.commands.trained import Opened, open_run
from anysubset.errors import InputError


def predict_options(parser: jsonargparse.ArgumentParser) -> None:
    """The options of `predict`."""
    parser.add_argument("run", type=Path, help="Run folder.")
    parser.add_argument("path", nargs="+", type=Path, help="Folder of one patient, or of several; or one table.")
    parser.add_argument("--output", type=Path, help="Folder for answers; by default `predictions` in the run folder.")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:N.")


def predict(given: Given) -> None:
    """Answer from whatever there is.

    For each patient a mask in the files' own grid; for a table a row for each sample.
    """
    run = Path(given["run"])
    folder = Path(given.get("output") or run / "predictions")
    opened = open_run(run, given.get("device", "auto"))
    paths = [Path(path) for path in given["path"]]
    if opened.signature is None:
        predict_masks(opened, paths, folder)
    elif len(paths) > 1:
        raise InputError(f"Give one table, not {len(paths)}; their answers would replace each other.")
    else:
        predict_answers(opened, paths[0], folder)


def predict_masks(opened: Opened, paths: Sequence[Path], folder: Path) -> None:
    """A mask and a JSON for each patient."""
    from anysubset.evaluation.patients import predict as predict_patient
    from anysubset.tasks.segmentation import Segmentation
    from anysubset.volumes.patients import find_patients

    patients = [patient for path in paths for patient in find_patients(path)]
    for name, count in Counter(patient.id for patient in patients).items():
        if count > 1:
            raise InputError(f"{count} patients are called {name!r}; their masks would replace each other.")
    task = opened.task
    assert isinstance(task, Segmentation)
    folder.mkdir(parents=True, exist_ok=True)
    for patient in track(patients, "Predicting"):
        path = predict_patient(opened.method, task, patient, folder, opened.facts)
        say(f"{path}  from {', '.join(name for name in task.modalities if name in patient.sources)}")


def predict_answers(opened: Opened, table: Path, folder: Path) -> None:
    """One table of answers, and a JSON, for a table."""
    from anysubset.datasets.table import create_dataset
    from anysubset.evaluation.rows import answer
    from anysubset.scenarios import scenario_name
    from anysubset.tables.dataset import TableDataset

    experiment = opened.experiment.at(str(table))
    dataset = create_dataset(experiment.data, experiment.model, say, opened.signature, unlabelled=True)
    assert isinstance(dataset, TableDataset)
    dataset.prepare("all")
    folder.mkdir(parents=True, exist_ok=True)
    path, used = answer(opened.method, dataset, folder, opened.facts)
    for scenario, count in used.items():
        say(f"{path}  {count} from {', '.join(scenario)}")
        if scenario_name(scenario) not in opened.facts["validation"]:
            say(f"note: no validation sample has {', '.join(scenario)}; nothing is known of these answers")
