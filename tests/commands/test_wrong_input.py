"""Every kind of wrong input gives exit code 2 and one line that names it, before training starts."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import filelock
import nibabel as nib
import numpy as np
import pytest

from anysubset.cli import main
from anysubset.system import tensor_file


class Copies(NamedTuple):
    """Copies of the phantoms, of a trained run and of its experiment, which a test may damage."""

    patients: Path
    run: Path
    experiment: Path

    def file(self, case: str, name: str) -> Path:
        return self.patients / case / f"{case}_{name}.nii.gz"


class Fault(NamedTuple):
    """A kind of wrong input: how it is made, the command that meets it, and words of the message."""

    name: str
    breaks: Callable[[Copies], object]
    command: str
    words: tuple[str, ...]


@pytest.fixture
def copies(tmp_path: Path, phantoms: Path, trained: Path) -> Copies:
    shutil.copytree(phantoms, tmp_path / "patients")
    shutil.copytree(trained, tmp_path / "run")
    shutil.copy(trained.with_name("tiny.yaml"), tmp_path / "tiny.yaml")
    return Copies(tmp_path / "patients", tmp_path / "run", tmp_path / "tiny.yaml")


def rewrite(path: Path, change: Callable[[np.ndarray], object], affine: np.ndarray | None = None) -> None:
    """Write the image again with changed voxels, in float32, or with another affine."""
    image = nib.load(path)
    voxels = np.asarray(image.dataobj, dtype=np.float32)
    change(voxels)
    nib.save(nib.Nifti1Image(voxels, image.affine if affine is None else affine), path)


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-20])


def crop(path: Path) -> None:
    image = nib.load(path)
    nib.save(nib.Nifti1Image(np.asarray(image.dataobj)[..., :-1], image.affine), path)


def move(path: Path) -> None:
    shifted = nib.load(path).affine.copy()
    shifted[0, 3] += 3
    rewrite(path, lambda voxels: None, shifted)


def put(value: float) -> Callable[[np.ndarray], None]:
    """Set one voxel."""

    def change(voxels: np.ndarray) -> None:
        voxels[8, 8, 8] = value

    return change


def fill(value: float) -> Callable[[np.ndarray], None]:
    """Set every voxel."""
    return lambda voxels: voxels.fill(value)


def splits(copies: Copies, **changed: list[str]) -> None:
    """Change some splits."""
    path = copies.patients / "splits.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changed}))


def empty(copies: Copies) -> None:
    shutil.rmtree(copies.patients)
    copies.patients.mkdir()


def locked(copies: Copies) -> filelock.FileLock:
    """Acquire the lock of the run folder; it is held as long as the result is referenced."""
    lock = filelock.FileLock(copies.run / ".lock")
    lock.acquire()
    return lock


def relabel(path: Path, **settings: object) -> None:
    """Rewrite a checkpoint as if its experiment had these settings."""
    tensors, facts = tensor_file.load(path)
    facts["experiment"] |= {name.replace("_", ".", 1): value for name, value in settings.items()}
    tensor_file.save(path, tensors, facts)


def swap(copies: Copies, source: str, target: str) -> None:
    """Copy one kind of checkpoint to the name of the other."""
    shutil.copy(copies.run / "checkpoints" / source, copies.run / "checkpoints" / target)


def damage(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:1000])


def only_unknown(copies: Copies) -> None:
    """Leave patient 003 with one modality that is not of the task."""
    copies.file("phantom_003", "flair").rename(copies.file("phantom_003", "adc"))
    copies.file("phantom_003", "t2").unlink()


def yaml_with(text: str) -> Callable[[Copies], object]:
    """Replace the text of the experiment."""
    return lambda copies: copies.experiment.write_text(text)


def nothing(copies: Copies) -> None:
    """Change nothing: the files are right, and the command is wrong."""


FIT = "fit {experiment} --run {new}"
VALUES = 16**3
FAULTS = [
    # ------------------------------------------------------------------------------------------ files of patients
    Fault(
        "a truncated gzip file",
        lambda copies: cut(copies.file("phantom_001", "t1")),
        FIT,
        ("phantom_001_t1.nii.gz", "cannot be read"),
    ),
    Fault(
        "a truncated gzip file of a validation patient",
        lambda copies: cut(copies.file("phantom_005", "t1")),
        FIT,
        ("phantom_005_t1.nii.gz", "cannot be read"),
    ),
    Fault(
        "a text file named nii.gz",
        lambda copies: copies.file("phantom_001", "t2").write_text("404: Not Found\n"),
        FIT,
        ("phantom_001_t2.nii.gz", "cannot be read", "not of the format of its name"),
    ),
    Fault(
        "shapes that differ within a patient",
        lambda copies: crop(copies.file("phantom_001", "t1")),
        FIT,
        ("Shapes differ", "phantom_001_t1.nii.gz", "16 x 16 x 16", "16 x 16 x 15"),
    ),
    Fault(
        "affines that differ within a patient",
        lambda copies: move(copies.file("phantom_001", "t1")),
        FIT,
        ("Affines differ", "phantom_001_t1.nii.gz"),
    ),
    Fault(
        "a label that no region declares",
        lambda copies: rewrite(copies.file("phantom_001", "seg"), put(3)),
        FIT,
        ("phantom_001_seg.nii.gz", "not declared: 3", "declared: 0, 1, 2, 4"),
    ),
    Fault(
        "a NaN voxel",
        lambda copies: rewrite(copies.file("phantom_001", "t1"), put(np.nan)),
        FIT,
        ("phantom_001_t1.nii.gz", f"1 NaN or infinite voxels of {VALUES}"),
    ),
    Fault(
        "an infinite voxel at prediction",
        lambda copies: rewrite(copies.file("phantom_001", "t1"), put(np.inf)),
        "predict {run} {patients}/phantom_001 --output {new}",
        ("phantom_001_t1.nii.gz", f"1 NaN or infinite voxels of {VALUES}"),
    ),
    Fault(
        "a modality of zeros",
        lambda copies: rewrite(copies.file("phantom_001", "t1"), fill(0)),
        FIT,
        ("phantom_001_t1.nii.gz", "no voxel that differs from 0", "remove the file"),
    ),
    Fault(
        "a modality with the same value everywhere",
        lambda copies: rewrite(copies.file("phantom_001", "t1"), fill(7)),
        FIT,
        ("phantom_001", "t1", "no foreground"),
    ),
    Fault(
        "a patient without a label",
        lambda copies: copies.file("phantom_001", "seg").unlink(),
        FIT,
        ("'phantom_001'", "no label"),
    ),
    Fault("a folder without patients", empty, FIT, ("holds no patients",)),
    Fault(
        "a patient with none of the modalities",
        only_unknown,
        "predict {run} {patients}/phantom_003 --output {new}",
        ("'phantom_003'", "flair", "t1ce", "it has: adc"),
    ),
    # ----------------------------------------------------------------------------------------------------- splits
    Fault("an empty split", lambda copies: splits(copies, val=[]), FIT, ("empty split", "'val'")),
    Fault(
        "an id in two splits",
        lambda copies: splits(copies, val=["phantom_000"]),
        FIT,
        ("'phantom_000'", "two splits", "'train'", "'val'"),
    ),
    Fault(
        "an id that no patient has",
        lambda copies: splits(copies, val=["phantom_999"]),
        FIT,
        ("'val'", "no patient has", "phantom_999"),
    ),
    Fault(
        "no splits at all",
        lambda copies: (copies.patients / "splits.json").unlink(),
        FIT,
        ("Unknown split 'train'", "Choose from: all"),
    ),
    Fault(
        "an unknown split",
        nothing,
        "evaluate {run} --split tset",
        ("Unknown split 'tset'", "Did you mean 'test'?"),
    ),
    # --------------------------------------------------------------------------------------------------- settings
    Fault(
        "an unknown modality",
        nothing,
        FIT + " --data.modalities [t1,t2w]",
        ("Unknown modality 't2w'", "Did you mean 't2'?"),
    ),
    Fault(
        "an unknown dataset",
        nothing,
        FIT + " --data.name phantoms",
        ("Unknown dataset 'phantoms'", "Did you mean 'phantom'?"),
    ),
    Fault("an unknown method", nothing, FIT + " --method.name gdm", ("Unknown method 'gdm'", "Did you mean 'gmd'?")),
    Fault(
        "an unknown option of a method",
        nothing,
        FIT + " --method.name gmd --method.flor 0.1",
        ("Unknown option of method 'gmd' 'flor'", "Did you mean 'floor'?"),
    ),
    Fault(
        "an option that the method does not have",
        nothing,
        FIT + " --method.name sharing --method.floor 0.1",
        ("Unknown option of method 'sharing' 'floor'",),
    ),
    Fault(
        "an option of a method that is of the wrong kind",
        nothing,
        FIT + " --method.name gmd --method.floor small",
        ("floor", "'small'"),
    ),
    Fault(
        "an unknown setting in the file",
        yaml_with("train: {stepz: 3}"),
        FIT,
        ("Unknown setting 'train.stepz'", "Did you mean 'train.steps'?"),
    ),
    Fault("a setting without a value", yaml_with("train: {steps: }"), FIT, ("train.steps",)),
    Fault(
        "an unknown option of the command",
        nothing,
        FIT + " --train.stepz 3",
        ("'--train.stepz'", "Did you mean '--train.steps'?"),
    ),
    Fault("an unknown command", nothing, "fti {experiment}", ("Unknown command 'fti'", "Did you mean 'fit'?")),
    Fault("a command without a required argument", nothing, "fit", ("Name the YAML files", "--resume --run RUN")),
    Fault("a missing experiment file", nothing, "fit {new}.yaml --run {new}", ("no experiment file", "new.yaml")),
    Fault("a seed below 0", nothing, FIT + " --seed -1", ("seed", "-1")),
    Fault("a negative number of workers", nothing, FIT + " --data.workers -1", ("data.workers", "-1")),
    Fault(
        "an unavailable device",
        nothing,
        FIT + " --train.device cuda:99",
        ("Device 'cuda:99' is not available",),
    ),
    Fault(
        "an unavailable device, at prediction",
        nothing,
        "predict {run} {patients}/phantom_003 --output {new} --device cuda:99",
        ("Device 'cuda:99' is not available",),
    ),
    # ------------------------------------------------------------------------------------------------ run folders
    Fault("a missing run folder", nothing, "evaluate {new}", ("no run folder", "anysubset fit")),
    Fault("a missing run folder at prediction", nothing, "predict {new} {patients}/phantom_003", ("no run folder",)),
    Fault("a file instead of a run folder", nothing, "fit {experiment} --run {experiment}", ("tiny.yaml", "folder")),
    Fault("a folder that holds a run", nothing, "fit {experiment} --run {run}", ("already holds a run", "--resume")),
    Fault("a run folder in use", locked, "fit {experiment} --run {run} --resume", ("in use by another process",)),
    Fault(
        "a run of another experiment",
        nothing,
        "fit {experiment} --run {run} --resume --train.lr 0.1",
        ("belongs to another experiment", "train.lr differ"),
    ),
    Fault(
        "a checkpoint of another experiment, resumed",
        lambda copies: relabel(copies.run / "checkpoints/latest.safetensors", train_lr=0.1, seed=9),
        "fit {experiment} --run {run} --resume",
        ("latest.safetensors belongs to another experiment", "seed, train.lr differ"),
    ),
    Fault(
        "a checkpoint of another experiment, evaluated",
        lambda copies: relabel(copies.run / "checkpoints/best.safetensors", method_width=0.5),
        "evaluate {run}",
        ("best.safetensors belongs to another experiment", "method.width differ"),
    ),
    Fault(
        "a latest checkpoint under the name of the best",
        lambda copies: swap(copies, "latest.safetensors", "best.safetensors"),
        "evaluate {run}",
        ("best.safetensors",),
    ),
    Fault(
        "a best checkpoint under the name of the latest",
        lambda copies: swap(copies, "best.safetensors", "latest.safetensors"),
        "fit {experiment} --run {run} --resume",
        ("latest.safetensors",),
    ),
    Fault(
        "a damaged checkpoint",
        lambda copies: damage(copies.run / "checkpoints/best.safetensors"),
        "predict {run} {patients}/phantom_003 --output {new}",
        ("best.safetensors", "damaged"),
    ),
]


@pytest.mark.parametrize("fault", FAULTS, ids=[fault.name.replace(" ", "-") for fault in FAULTS])
def test_wrong_input_is_refused_in_one_line_before_training(fault, copies, tmp_path, capsys):
    reference = fault.breaks(copies)  # A lock is released when the last reference to it is deleted.
    before = files_of(copies.run)
    root = f" --data.root {copies.patients}" if fault.command.startswith("fit {") else ""
    command = (fault.command + root).format(**copies._asdict(), new=tmp_path / "new")
    code = main(command.split())
    message = capsys.readouterr().err
    del reference
    assert code == 2
    assert message.startswith("anysubset: ")
    assert message.count("\n") == 1
    assert [word for word in fault.words if word not in message] == []
    # Nothing was trained, and the run folder is unchanged.
    assert files_of(copies.run) == before
    assert [path.name for path in tmp_path.rglob("*.safetensors") if copies.run not in path.parents] == []
    assert not list((tmp_path / "new").glob("*.nii.gz"))


def files_of(run: Path) -> dict[str, bytes]:
    """Content of checkpoints and logs by name."""
    contents = {path.name: path.read_bytes() for path in [*run.glob("checkpoints/*"), *run.glob("*.*")]}
    assert {"latest.safetensors", "best.safetensors", "metrics.jsonl"} <= set(contents)
    return contents


def test_names_of_faults_are_unique():
    assert len({fault.name for fault in FAULTS}) == len(FAULTS) > 40
