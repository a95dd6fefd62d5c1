"""A run folder that is open for training: its lock, experiment, signature and logs."""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType, TracebackType
from typing import Any

import filelock
import torch
from torch import Tensor

from anysubset.datasets.dataset import Knowledge
from anysubset.errors import InputError, listed
from anysubset.experiments.files import read_run_experiment, write_experiment
from anysubset.experiments.settings import INCIDENTAL, Experiment
from anysubset.system import processes, tensor_file
from anysubset.system.agreement import CHECKPOINT, check_agreement
from anysubset.system.files import atomic_write, clear_parts
from anysubset.system.fingerprints import Fingerprints, differences, read_fingerprints, write_fingerprints
from anysubset.system.model_file import write_model_file
from anysubset.system.run_files import read_log
from anysubset.system.run_folder import RunFolder
from anysubset.system.written import writer_of
from anysubset.training.cost import CostLog
from anysubset.training.curves import Curves
from anysubset.training.decoupling_log import DecouplingLog
from anysubset.training.environment import environment

FIT = "anysubset fit"


class Run:
    """An open run folder, as a context manager that holds its lock. Only the first of several processes writes to it.

    Args:
        path: the folder; created if it does not exist.
        experiment: the experiment to be run.
        resume: whether to continue the run in the folder, if there is one.
        training: what the method sees in training, for reports; recorded with the weights.
        start: members of the model file from which training starts, which is stored in the folder; empty for none.

    Raises:
        InputError: if another process uses the folder, it holds a run and `resume` is False, it holds a run of another
            experiment, or a file has its name.
    """

    def __init__(
        self,
        path: Path,
        experiment: Experiment,
        resume: bool = False,
        training: Mapping[str, Any] = MappingProxyType({}),
        start: Mapping[str, str | bytes] = MappingProxyType({}),
    ) -> None:
        self.path = path
        self.experiment = experiment
        self.training = dict(training)
        self.start = dict(start)
        try:
            (path / "checkpoints").mkdir(parents=True, exist_ok=True)
        except (FileExistsError, NotADirectoryError):
            raise InputError(f"{path} cannot be a run folder, because a file has that name.") from None
        self.curves: Curves | None = None
        self.writes = processes.rank() == 0
        self.lock = filelock.FileLock(RunFolder(path).lock)
        if self.writes:
            try:
                # The operating system releases the lock when the process ends, even if it is killed.
                self.lock.acquire(timeout=0)
            except filelock.Timeout:
                raise InputError(f"Run folder {path} is in use by another process.") from None
        try:
            if self.writes:
                clear_parts(path)
                clear_parts(path / "checkpoints")
            self.claim(resume)
            processes.barrier()
            lock = "there" if RunFolder(path).lock.exists() else "missing"
            check_agreement("run folder", {"the lock file in it": lock}, CHECKPOINT)
        except BaseException:
            self.lock.release()
            raise

    def claim(self, resume: bool) -> None:
        """Raise InputError unless the folder holds no run and none of its files, or the run to be resumed."""
        stored = RunFolder(self.path).experiment
        if stored.exists() and not resume:
            raise InputError(f"{self.path} already holds a run. Add --resume to continue it, or choose another folder.")
        if not stored.exists():
            check_unused(self.path)
        if stored.exists():
            check_same(self.experiment, read_run_experiment(self.path).flat(), stored)

    def __enter__(self) -> "Run":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.curves is not None:
            self.curves.close()
        self.lock.release()

    @property
    def latest(self) -> Path:
        """Path of the checkpoint from which training is resumed."""
        return RunFolder(self.path).latest

    @property
    def best(self) -> Path:
        """Path of the selected weights (`train.select`)."""
        return RunFolder(self.path).best

    # ------------------------------------------------------------------------------------------------- logs

    def begin(
        self,
        step: int,
        knowledge: Knowledge = ({}, {}),
        fingerprints: Mapping[str, Fingerprints] = MappingProxyType({}),
        training_set: Mapping[str, Any] = MappingProxyType({}),
    ) -> None:
        """Write experiment, environment and signature, and drop log entries after the step at which training resumes.

        Must be called after the data were read, so that faulty data leave no run in the folder.

        Args:
            step: number of steps done; later entries of the logs are dropped, since these steps are repeated.
            knowledge: tensors and facts of the training data for `signature.safetensors`; no file if both are empty.
            fingerprints: of the data by split, for `data.json`; no file if there are none.
            training_set: content of `training_set.json`; no file if it is empty.

        Raises:
            InputError: if fingerprints or signature in the folder are those of other data.
        """
        tensors, facts = knowledge
        if RunFolder(self.path).experiment.exists():
            check_data(self.path, fingerprints)
        signature = RunFolder(self.path).signature
        if RunFolder(self.path).experiment.exists() and signature.exists():
            check_signature(signature, tensors, facts)
        self.decoupling = DecouplingLog(RunFolder(self.path).decoupling, step)
        self.cost = CostLog(RunFolder(self.path).cost, step)
        if not self.writes:
            return
        stored = RunFolder(self.path).experiment
        if not stored.exists():
            # These are recorded, so that a run that was killed before it had its experiment can be started again.
            if tensors or facts:
                tensor_file.save(signature, tensors, facts, FIT)
            if self.start:
                write_model_file(RunFolder(self.path).start, self.start, FIT)
            if fingerprints:
                write_fingerprints(RunFolder(self.path).data, fingerprints, FIT)
            if training_set:
                with atomic_write(RunFolder(self.path).training_set, FIT) as temporary:
                    temporary.write_text(json.dumps(training_set, indent=2) + "\n", encoding="utf-8")
            with atomic_write(RunFolder(self.path).environment, FIT) as temporary:
                temporary.write_text(json.dumps(environment(), indent=2) + "\n", encoding="utf-8")
            with atomic_write(stored) as temporary:
                write_experiment(self.experiment, temporary)
        log = RunFolder(self.path).losses
        if log.exists():
            lines = [json.dumps(entry) for entry in read_log(log) if entry["step"] <= step]
            with atomic_write(log) as temporary:
                temporary.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
        self.curves = Curves(RunFolder(self.path).tensorboard, first=step + 1)

    def log(self, step: int, values: Mapping[str, Any], curves: Mapping[str, float]) -> None:
        """Append one line to `metrics.jsonl`, and one point to each curve of TensorBoard.

        Args:
            step: number of the step.
            values: content of the line, by name.
            curves: values of the curves, by name.
        """
        if not self.writes:
            return
        with RunFolder(self.path).losses.open("a", encoding="utf-8") as file:
            file.write(json.dumps({"step": step, **values}) + "\n")
        if self.curves is not None:
            for name, value in curves.items():
                self.curves.add(name, value, step)


def check_unused(folder: Path) -> None:
    """Raise InputError if a folder without an experiment holds a file with the name of one of a run's.

    Files of the beginning of a run that was killed do not count; other files are none of the run's business.
    """
    run = RunFolder(folder)
    for path in run.files:
        if os.path.lexists(path) and writer_of(path) != FIT:
            raise InputError(
                f"{path} exists, but {folder} holds no run that it belongs to (no {run.experiment.name}): choose "
                "another folder for the run, so that the file is not overwritten."
            )


def check_data(folder: Path, fingerprints: Mapping[str, Fingerprints]) -> None:
    """Raise InputError, with what differs, if a run began with other data; not for a run without fingerprints."""
    recorded = read_fingerprints(RunFolder(folder).data)
    lines = differences(recorded, fingerprints) if recorded is not None else []
    if lines:
        raise InputError(
            f"The data are not those that {folder} was trained on so far: {listed(lines)}. "
            "Continue with the same data, or train into another run folder."
        )


def check_signature(path: Path, tensors: Mapping[str, Tensor], facts: Mapping[str, Any]) -> None:
    """Raise InputError, with the names of the differences, if a signature file does not describe the training data.

    Args:
        path: of the signature file.
        tensors: tensors of the signature of the training data, by name.
        facts: facts of the signature of the training data, by name.
    """
    stored_tensors, stored_facts = tensor_file.load(path)
    current_facts: Mapping[str, Any] = json.loads(json.dumps(facts))  # JSON turns tuples into lists.
    names = sorted({*stored_facts, *current_facts})
    different = [name for name in names if stored_facts.get(name) != current_facts.get(name)]
    for name in sorted({*stored_tensors, *tensors}):
        current, stored = tensors.get(name), stored_tensors.get(name)
        # The last digits of statistics depend on the number of threads.
        if (
            current is None
            or stored is None
            or current.shape != stored.shape
            or not torch.allclose(current, stored, rtol=1e-9)
        ):
            different.append(name)
    if different:
        raise InputError(
            f"{path} was written for other training data: {', '.join(different)} differ. "
            "Use the same data, or another run folder."
        )


def check_same(experiment: Experiment, settings: Mapping[str, Any], source: Path) -> None:
    """Raise InputError, with the names of the settings that differ, if a file belongs to another experiment.

    Settings of `INCIDENTAL` may differ, since they do not change results.

    Args:
        experiment: the current experiment.
        settings: settings of the experiment that wrote the file, by dotted name.
        source: the file.
    """
    # A setting that the file lacks was added in a later version; its default is the earlier behaviour.
    defaults = Experiment().flat()
    mine, theirs = {**defaults, **experiment.flat()}, {**defaults, **settings}
    names = sorted({*mine, *theirs} - set(INCIDENTAL))
    different = [name for name in names if mine.get(name) != theirs.get(name)]
    if different:
        raise InputError(
            f"{source} belongs to another experiment: {', '.join(different)} differ. "
            "Use the same settings, or another run folder."
        )
