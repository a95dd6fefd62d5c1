"""The folder of a run: its experiment, environment, checkpoints and logs; used by one process at a time."""

import json
import platform
import sys
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from types import TracebackType
from typing import Any

import filelock
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.tensorboard import SummaryWriter

import anysubset
from anysubset.datasets.dataset import Knowledge
from anysubset.errors import InputError
from anysubset.experiments.files import read_run_experiment, write_experiment
from anysubset.experiments.settings import INCIDENTAL, Experiment
from anysubset.gradients import Decoupling
from anysubset.system import processes, tensor_file
from anysubset.system.files import clear_parts, whole
from anysubset.system.run_folder import RunFolder
from anysubset.training.cost import CostLog


class Run:
    """An open run folder; a context manager that holds its lock. Of several processes one writes to it.

    Args:
        path: the folder; made when it is not there.
        experiment: what is to be run.
        resume: whether to go on with what the folder holds, if anything.

    Raises:
        InputError: if another process uses the folder, it holds a run and `resume` is not given, or it holds a run
            of another experiment.
    """

    def __init__(self, path: Path, experiment: Experiment, resume: bool = False) -> None:
        self.path = path
        self.experiment = experiment
        try:
            (path / "checkpoints").mkdir(parents=True, exist_ok=True)
        except (FileExistsError, NotADirectoryError):
            raise InputError(f"{path} cannot be a run folder: a file has that name.") from None
        self.curves: SummaryWriter | None = None
        self.writes = processes.rank() == 0
        self.lock = filelock.FileLock(path / ".lock")
        if self.writes:
            try:
                # The system drops the lock when the process ends, however it ends.
                self.lock.acquire(timeout=0)
            except filelock.Timeout:
                raise InputError(f"Run folder {path} is in use by another process.") from None
        try:
            if self.writes:
                clear_parts(path)
                clear_parts(path / "checkpoints")
            self.claim(resume)
        except BaseException:
            self.lock.release()
            raise
        processes.barrier()

    def claim(self, resume: bool) -> None:
        """Checks that the folder is free, or holds the run that is to be resumed."""
        stored = RunFolder(self.path).experiment
        if stored.exists() and not resume:
            raise InputError(
                f"{self.path} holds a run already. Add --resume to go on with it, or choose another folder."
            )
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
        """Everything that is needed to go on."""
        return RunFolder(self.path).latest

    @property
    def best(self) -> Path:
        """The weights with the best validation score."""
        return RunFolder(self.path).best

    # ------------------------------------------------------------------------------------------------- logs

    def begin(self, step: int, knowledge: Knowledge = ({}, {})) -> None:
        """Writes what the run is, and forgets what was logged after a step: it is about to be done again.

        Until now the folder holds nothing, so that faulty data leave nothing behind.

        knowledge: of the training data, what `signature.safetensors` keeps; no such file where there is nothing to.

        Raises:
            InputError: if the folder knows other things of its training data.
        """
        tensors, facts = knowledge
        known = RunFolder(self.path).signature
        if RunFolder(self.path).experiment.exists() and known.exists():
            check_known(known, tensors, facts)
        self.decoupling = DecouplingLog(RunFolder(self.path).decoupling, step)
        self.cost = CostLog(RunFolder(self.path).cost, step)
        if not self.writes:
            return
        stored = RunFolder(self.path).experiment
        if not stored.exists():
            if tensors or facts:
                tensor_file.save(known, tensors, facts)
            RunFolder(self.path).environment.write_text(json.dumps(environment(), indent=2) + "\n", encoding="utf-8")
            with whole(stored) as temporary:
                write_experiment(self.experiment, temporary)
        log = RunFolder(self.path).losses
        if log.exists():
            kept = []
            for line in log.read_text(encoding="utf-8").splitlines():
                try:
                    entry = json.loads(line)
                except ValueError:
                    break  # The process was killed while it wrote this line.
                if entry["step"] <= step:
                    kept.append(line)
            with whole(log) as temporary:
                temporary.write_text("".join(f"{line}\n" for line in kept), encoding="utf-8")
        self.curves = SummaryWriter(str(RunFolder(self.path).tensorboard), purge_step=step + 1)

    def log(self, step: int, values: Mapping[str, Any], curves: Mapping[str, float]) -> None:
        """One line of `metrics.jsonl`, and points on TensorBoard's curves."""
        if not self.writes:
            return
        with RunFolder(self.path).losses.open("a", encoding="utf-8") as file:
            file.write(json.dumps({"step": step, **values}) + "\n")
        if self.curves is not None:
            for name, value in curves.items():
                self.curves.add_scalar(name, value, step)


def check_known(path: Path, tensors: Mapping[str, Tensor], facts: Mapping[str, Any]) -> None:
    """What a file knows of the training data is true of those at hand.

    Raises:
        InputError: if it is not; names what differs.
    """
    known, said = tensor_file.load(path)
    found: Mapping[str, Any] = json.loads(json.dumps(facts))
    different = [name for name in sorted({*said, *found}) if said.get(name) != found.get(name)]
    for name in sorted({*known, *tensors}):
        here, there = tensors.get(name), known.get(name)
        # Statistics may differ in their last digits from one number of threads to another.
        if here is None or there is None or here.shape != there.shape or not torch.allclose(here, there, rtol=1e-9):
            different.append(name)
    if different:
        raise InputError(
            f"{path} was written for other training data: {', '.join(different)} differ. "
            "Use the same data, or another run folder."
        )


def check_same(experiment: Experiment, settings: Mapping[str, Any], source: Path) -> None:
    """The settings that a file was made with are those of the experiment, but for incidental ones.

    Raises:
        InputError: if they are not; names those that differ.
    """
    # A setting that a file does not know of came later, and its default does what was done before.
    defaults = Experiment().flat()
    mine, theirs = {**defaults, **experiment.flat()}, {**defaults, **settings}
    names = sorted({*mine, *theirs} - set(INCIDENTAL))
    different = [name for name in names if mine.get(name) != theirs.get(name)]
    if different:
        raise InputError(
            f"{source} belongs to another experiment: {', '.join(different)} differ. "
            "Use the same settings, or another run folder."
        )


class Decouplings:
    """What decoupling saw and decided in many steps, labelled by case however the cases are drawn."""

    def __init__(self) -> None:
        self.cases: list[str] = []
        self.entries: list[tuple[int, list[int], dict[str, NDArray[np.float64]]]] = []

    def add(self, step: int, decoupling: Decoupling) -> None:
        """One step."""
        names = [str(case) for case in decoupling.cases]
        self.cases += [name for name in names if name not in self.cases]
        found = {
            "coefficients": decoupling.coefficient_vector,
            "norms": decoupling.gramian.diagonal().sqrt(),
            "cosines": decoupling.cosine_matrix,
            "gramian": decoupling.gramian,
            "copies": torch.full_like(decoupling.gramian, torch.nan)
            if decoupling.copies is None
            else decoupling.copies,
        }
        places = [self.cases.index(name) for name in names]
        self.entries.append((step, places, {name: value.numpy() for name, value in found.items()}))

    def arrays(self) -> dict[str, NDArray[Any]]:
        """Of T steps of at most k cases, padded with -1 and NaN, by name.

        `step` (T,), `cases` (C,) the names, `case` (T, k) places in `cases`, `coefficients` (T, k), `norms` (T, k),
        `cosines` (T, k, k), `gramian` (T, k, k), `copies` (T, k, k) as in `Decoupling`, NaN where the rule
        gives coefficients alone.
        """
        length, k = len(self.entries), max((len(places) for _, places, _ in self.entries), default=0)
        arrays: dict[str, NDArray[Any]] = {
            "step": np.array([step for step, *_ in self.entries], dtype=np.int64),
            "cases": np.array(self.cases, dtype=np.str_),
            "case": np.full((length, k), -1),
            **{name: np.full((length, k), np.nan) for name in ("coefficients", "norms")},
            **{name: np.full((length, k, k), np.nan) for name in ("cosines", "gramian", "copies")},
        }
        for row, (_, places, found) in enumerate(self.entries):
            arrays["case"][row, : len(places)] = places
            for name, value in found.items():
                arrays[name][row][tuple(slice(size) for size in value.shape)] = value
        return arrays


class DecouplingLog(Decouplings):
    """`decoupling.npz`, which holds the `arrays` of the steps that were logged; older files lack some of them.

    Args:
        path: of the file; what is in it is gone on with.
        until: the last step of the file that still counts.
    """

    def __init__(self, path: Path, until: int) -> None:
        super().__init__()
        self.path = path
        if not path.exists():
            return
        with np.load(path) as file:
            # Coefficients were called weights in older files.
            stored = {"coefficients" if name == "weights" else name: file[name] for name in file.files}
        self.cases = stored.pop("cases").tolist()
        steps, case = stored.pop("step").tolist(), stored.pop("case")
        for row, step in enumerate(steps):
            if step <= until:
                places = [place for place in case[row].tolist() if place >= 0]
                k = slice(len(places))
                found = {name: values[row][(k,) * (values.ndim - 1)] for name, values in stored.items()}
                self.entries.append((step, places, found))

    def save(self) -> None:
        """Writes the file, whole or not at all; nothing where nothing was decoupled."""
        if self.entries:
            with whole(self.path) as temporary:
                # Not compressed, which would save a third of the room and take ten times as long, at every checkpoint.
                np.savez(temporary, **self.arrays())  # type: ignore[arg-type]


def environment() -> dict[str, Any]:
    """What the numbers of a run may depend on besides the experiment."""
    packages = ("torch", "monai", "numpy", "nibabel", "safetensors")
    return {
        "anysubset": anysubset.__version__,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "command": sys.argv,
        "threads": torch.get_num_threads(),
        "cuda": torch.version.cuda if torch.cuda.is_available() else None,
        "devices": [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())],
        "packages": {name: metadata.version(name) for name in packages},
    }
