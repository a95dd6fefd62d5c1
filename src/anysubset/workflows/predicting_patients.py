"""Predict many patients: those that fail are passed over, those that were predicted before are skipped."""

import os
from collections import Counter
from collections.abc import Generator, Iterable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from anysubset.errors import InputError, PatientsError
from anysubset.evaluation.expected_dice import ExpectedDice, PatientDice, expected_dice, validation_dice
from anysubset.evaluation.patient_files import PatientFiles, facts_of, files_of, write_patient
from anysubset.evaluation.patients import Member, predict
from anysubset.evaluation.summary import (
    SUMMARY,
    Row,
    columns_of,
    earlier_rows,
    failed_row,
    lines_on,
    row_of,
    write_summary,
)
from anysubset.scenarios import Scenario
from anysubset.system.children import Job, run_jobs
from anysubset.system.cluster import run_on_cluster
from anysubset.system.fingerprints import hash_of
from anysubset.system.input_files import read_json
from anysubset.system.model_file import run_folder_of
from anysubset.system.numbers import memory_errors
from anysubset.system.run_folder import RunFolder
from anysubset.system.streams import described
from anysubset.system.written import Entry, content_hash, entry_of, writer_of
from anysubset.tasks.segmentation import Segmentation
from anysubset.volumes.image_headers import header_and_voxels
from anysubset.volumes.patient import Patient
from anysubset.volumes.patients import survey
from anysubset.volumes.working_grid import resampling_of
from anysubset.workflows.arguments import Progress, Report
from anysubset.workflows.prediction_folder import Output
from anysubset.workflows.trained import Trained, open_run

PREDICTION = 2  # Version: increase it with every change of what is predicted or written, so that nothing is skipped.
# Modules that the processes of `jobs` need and that take seconds to import.
PRELOAD = ("anysubset.workflows.predicting_patients", "anysubset.methods.table", "monai.inferers", "monai.transforms")


@dataclass(frozen=True)
class Request:
    """What a call of `predict` asks for, the same for every patient.

    runs: folders of the runs. output: where the predictions go.
    probabilities, entropy: whether volumes of them are written beside the masks.
    """

    runs: tuple[Path, ...]
    output: Output
    probabilities: bool = False
    entropy: bool = False

    def files(self, patient: Patient, task: Segmentation) -> PatientFiles:
        """The files to be written for a patient."""
        return files_of(self.output.folder, patient.id, task, self.probabilities, self.entropy)


def predict_patients(
    request: Request,
    trained: Sequence[Trained],
    paths: Sequence[Path],
    jobs: int | None,
    backend: str | None,
    report: Report,
    warn: Report,
    progress: Progress,
) -> list[Path]:
    """Write the files of each patient. Returns the masks, of skipped patients too.

    Args:
        request: what to write, and where.
        trained: the runs of the request.
        paths: folders of one or several patients, or manifests.
        jobs: number of processes, with one thread each; None for this process with all of its threads.
        backend: of a cluster, whose workers predict in place of `jobs`; or None.
        report: called with a line for each predicted patient.
        warn: called with a line for each patient that fails.
        progress: wraps patients, with a label and their number, to show a progress bar.

    Raises:
        PatientsError: at the end, if some of several patients failed; the others are written.
        InputError: if the only patient fails, or before anything is computed, if a file must not be replaced.
    """
    task = trained[0].task
    assert isinstance(task, Segmentation)
    patients = patients_at(paths, report)
    files = {patient.id: request.files(patient, task) for patient in patients}
    summary = request.output.folder / SUMMARY
    request.output.check([summary, *(path for of_patient in files.values() for path in of_patient.all)])
    request.output.folder.mkdir(parents=True, exist_ok=True)
    done = {
        patient.id
        for patient in progress(patients, "Looking for patients that were predicted before", len(patients))
        if is_done(patient, files[patient.id], trained, request.output.writer)
    }
    if done:
        report(
            f"{len(done)} of {len(patients)} patients skipped: {request.output.folder} holds their predictions, from "
            "the same files by the same weights"
        )
    waiting = [patient for patient in patients if patient.id not in done]
    expected = Expectations(trained, task, report)
    note_unmeasured(trained, report)
    facts = {name: read_json(files[name].about) for name in done}
    failed: dict[str, str] = {}
    if jobs is None and backend is None:
        outcomes = one_by_one(request, trained, waiting)
    else:
        outcomes = in_processes(request, waiting, jobs, backend)
    with closing(outcomes):
        for patient, fault in progress(outcomes, "Predicting", len(waiting)):
            if fault is None:
                about = read_json(files[patient.id].about)
                facts[patient.id] = about
                for line in lines_on(files[patient.id].mask, about, expected.of(about["used"])):
                    report(line)
                continue
            if len(patients) == 1:
                raise InputError(fault)
            failed[patient.id] = fault
            warn(f"patient {patient.id!r} is not predicted: {fault}")
    rows = {name: row_of(about, expected.of(about["used"])) for name, about in facts.items()}
    rows |= {name: failed_row(name, fault) for name, fault in failed.items()}
    add_to_summary(request, task, rows)
    report(f"{summary}: a row for each patient")
    if failed:
        raise PatientsError(failed, len(patients), request.output.folder)
    return [files[patient.id].mask for patient in patients]


def note_unmeasured(trained: Iterable[Trained], report: Report) -> None:
    """Report the runs that do not know the ranges of their training sets."""
    for run in trained:
        if run.training_set is None:
            report(
                f"note: {run.path} has no {RunFolder(run.path).training_set.name}, as it was trained by an earlier "
                "version, so volumes, voxels and intensities are not compared with its training set"
            )


def patients_at(paths: Sequence[Path], report: Report) -> list[Patient]:
    """The patients at some paths. Raises InputError if two have one id, so that their masks would have one name."""
    surveys = [survey(path) for path in paths]
    patients = [patient for one in surveys for patient in one.patients]
    for line in dict.fromkeys(line for one in surveys for line in one.passed_over):
        report(f"note: {line}")
    for name, count in Counter(patient.id for patient in patients).items():
        if count > 1:
            raise InputError(f"{count} patients are called {name!r}: their masks would overwrite each other.")
    return patients


# --------------------------------------------------------------------------------------------- one patient


def origin_of(patient: Patient, trained: Iterable[Trained]) -> str:
    """Hash of what a prediction is computed from: the weights of the runs, with their settings, and the files.

    A file is known by its content, wherever it lies, so a copy of a patient counts as the same patient.

    Raises:
        OSError: if a file cannot be read.
    """
    trained = list(trained)
    facts: list[object] = [PREDICTION, *(run.weights for run in trained)]
    for name in trained[0].task.modalities:
        if name in patient.sources:
            source = patient.sources[name]
            hashes = [content_hash(file) for file in header_and_voxels(source.path)]
            facts.append((name, source.channel, hashes))
    # The other modalities are named in the JSON file.
    facts.append(sorted(patient.sources))
    return hash_of(repr(facts).encode())


def is_done(patient: Patient, files: PatientFiles, trained: Sequence[Trained], writer: str) -> bool:
    """True if all files of a patient are as this command wrote them, by the same weights from the same files."""
    if patient.faults or not all(path.is_file() for path in files.all):
        return False
    try:
        expected = Entry(writer, origin_of(patient, trained))
    except OSError:
        return False  # Its prediction says why.
    return all(entry_of(path) == expected for path in files.all)


def predict_patient(request: Request, trained: Sequence[Trained], patient: Patient) -> None:
    """Predict a patient and write its files. Raises InputError if a file is faulty, or there is too little memory."""
    members = [member_of(run) for run in trained]
    task = members[0].task
    if patient.faults:
        raise InputError(patient.faults[0])
    try:
        origin = origin_of(patient, trained)
        with memory_errors("predict on a machine with more, or train on larger voxels (data.spacing)"):
            prediction = predict(members, patient)
    except OSError as error:
        raise InputError(described(error)) from error
    facts = facts_of(prediction, members)
    write_patient(request.files(patient, task), prediction, task, facts, request.output.writer, origin)


def member_of(trained: Trained) -> Member:
    """A run as a method that predicts patients."""
    assert isinstance(trained.task, Segmentation)
    resampling = resampling_of(trained.experiment.data)
    return Member(trained.method, trained.task, trained.facts, resampling, trained.training_set)


# -------------------------------------------------------------------------------------------------- summary


class Expectations:
    """The Dice to expect by scenario, from the validation scores in the run folders or model files.

    Args:
        trained: the runs.
        task: names the regions.
        report: called with one line for each run without scores of its weights.
    """

    def __init__(self, trained: Iterable[Trained], task: Segmentation, report: Report) -> None:
        self.regions = list(task.regions)
        self.by_scenario: dict[Scenario, ExpectedDice | None] = {}
        self.runs: list[PatientDice] = []
        trained = list(trained)
        if len(trained) > 1 and any(run.exported for run in trained):
            report(
                "note: the Dice to expect of several runs is left out, since a model file does not name the patients "
                "of its validation, which may be those of another run, too"
            )
            return
        for run in trained:
            with run_folder_of(run.path) as folder:
                scores = validation_dice(folder, run.experiment.data.name, run.weights)
            self.runs.append(scores)
            if not scores:
                report(
                    f"note: {run.path} holds no validation scores of its weights, so the Dice to expect is left out; "
                    f"`anysubset evaluate {run.path} --split val` gives them"
                )

    def of(self, used: Sequence[str]) -> ExpectedDice | None:
        """The Dice to expect from these modalities; None if it is unknown."""
        scenario = tuple(used)
        if scenario not in self.by_scenario:
            self.by_scenario[scenario] = expected_dice(self.runs, scenario, self.regions)
        return self.by_scenario[scenario]


def add_to_summary(request: Request, task: Segmentation, rows: Mapping[str, Row]) -> None:
    """Write `summary.csv`; rows of other patients stay, if their masks do."""
    folder, writer = request.output.folder, request.output.writer
    path, columns = folder / SUMMARY, columns_of(list(task.regions))
    earlier = earlier_rows(path, columns) if writer_of(path) == writer else []
    others = [row for row in earlier if row["id"] not in rows and files_of(folder, row["id"], task).mask.is_file()]
    write_summary(path, columns, [*others, *rows.values()], writer)


# --------------------------------------------------------------------------------------- patient after patient

# Patients, each with the line on why it failed, or None.
Outcomes = Generator[tuple[Patient, str | None], None, None]


def one_by_one(request: Request, trained: Sequence[Trained], patients: Iterable[Patient]) -> Outcomes:
    """Predict patients in this process."""
    for patient in patients:
        try:
            predict_patient(request, trained, patient)
        except InputError as error:
            yield patient, str(error)
        else:
            yield patient, None


def in_processes(request: Request, patients: Iterable[Patient], jobs: int | None, backend: str | None) -> Outcomes:
    """Predict each patient in a process of its own on the CPU, `jobs` at a time here or on the workers of a cluster.

    One thread, so that the bits of a prediction do not depend on the number of processes. A patient whose process is
    killed, as for want of memory, counts as failed.
    """
    by_id = {patient.id: patient for patient in patients}
    log = Path(os.devnull)
    work = {name: Job(predict_in_process, (request, patient), log) for name, patient in by_id.items()}
    all_ends = run_jobs(work, jobs or 1, 1, PRELOAD) if backend is None else run_on_cluster(work, backend, 1, PRELOAD)
    with closing(all_ends) as ends:
        for name, end in ends:
            yield by_id[name], end.reason.removeprefix("anysubset: ") if end.code else None


def predict_in_process(request: Request, patient: Patient) -> None:
    """Open the runs of a request and predict one patient. Runs in a child process."""
    predict_patient(request, [open_run(run, device="cpu") for run in request.runs], patient)
