"""The table of data sets, and functions that create the task and the data set of an experiment."""

from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

from anysubset.errors import InputError, unknown
from anysubset.experiments.data_settings import DataSettings
from anysubset.experiments.settings import TaskSettings, flatten
from anysubset.tables.dataset import TableDataset
from anysubset.tables.kinds import INTENSITIES, SIMS, TableSet
from anysubset.tables.signature import Signature, read_signature
from anysubset.tables.task import prediction_task
from anysubset.tasks.prediction import Prediction
from anysubset.tasks.segmentation import Segmentation
from anysubset.volumes.dataset import Volumes
from anysubset.volumes.spellings import BRATS
from anysubset.volumes.task import VolumeSet, segmentation_task

DATASETS: dict[str, VolumeSet | TableSet] = {
    "volumes": VolumeSet("any patients; name data.modalities and data.regions yourself"),
    "brats": VolumeSet(
        "BraTS 2018-2021 (Synapse, registration): enhancing tumour is label 4",
        BRATS,
        (("WT", (1, 2, 4)), ("TC", (1, 4)), ("ET", (4,))),
    ),
    "brats2013": VolumeSet(
        "BraTS 2013: five labels, non-enhancing core is label 3",
        BRATS,
        (("WT", (1, 2, 3, 4)), ("TC", (1, 3, 4)), ("ET", (4,))),
    ),
    "brats2023": VolumeSet(
        "BraTS 2023 and later (Synapse, registration): enhancing tumour is label 3",
        BRATS,
        (("WT", (1, 2, 3)), ("TC", (1, 3)), ("ET", (3,))),
    ),
    "decathlon": VolumeSet(
        "Medical Decathlon, Task01 BrainTumour: 1 oedema, 2 non-enhancing, 3 enhancing",
        BRATS,
        (("WT", (1, 2, 3)), ("TC", (2, 3)), ("ET", (3,))),
    ),
    "lgg": VolumeSet(
        "TCGA low-grade glioma with masks of the FLAIR abnormality (Buda et al., public on Kaggle as kaggle_3m)",
        ("flair", "t1ce", "t1"),
        (("tumour", (1,)),),
        skull_stripped=False,
    ),
    "phantom": VolumeSet(
        "synthetic patients of `anysubset demo`: enhancing tumour shows almost only in t1ce",
        BRATS,
        (("WT", (1, 2, 4)), ("TC", (1, 4)), ("ET", (4,))),
    ),
    "table": TableSet("any table with a number or a class to predict; see data.reading"),
    "mosi": TableSet(
        "CMU-MOSI, sentiment of spoken reviews, in the files of MMSA, MulT and others",
        ("text", "audio", "vision"),
        INTENSITIES,
    ),
    "mosei": TableSet(
        "CMU-MOSEI, sentiment of spoken opinions, in the files of MMSA, MulT and others",
        ("text", "audio", "vision"),
        INTENSITIES,
    ),
    "sims": TableSet(
        "CH-SIMS, sentiment of clips of Chinese films and series, in the files of MMSA",
        ("text", "audio", "vision"),
        SIMS,
    ),
}

# Settings that apply to one kind of data set only.
FOR_VOLUMES = (
    *("data.regions", "data.skull_stripped", "data.cache", "data.workers", "data.augment"),
    *("data.resample", "data.spacing", "data.normalise", "data.clip"),
    *("task.patch", "task.pool", "task.cross_entropy", "task.overlap", "task.window", "task.mirror", "task.smallest"),
    "task.threshold",
)
FOR_TABLES = ("data.as_stored", "data.reading", "task.error")


def dataset_named(data: DataSettings) -> VolumeSet | TableSet:
    """The entry of `DATASETS` that `data.name` names.

    Raises:
        InputError: if there is no data set of this name.
    """
    if data.name not in DATASETS:
        raise unknown("dataset", data.name, DATASETS)
    return DATASETS[data.name]


def create_task(
    data: DataSettings, task: TaskSettings, signature: Signature | None = None
) -> Segmentation | Prediction:
    """Create the task of an experiment without reading data.

    Args:
        data: settings of the data.
        task: settings of the task.
        signature: inputs and target of the training data; required for a table, unused for volumes.

    Raises:
        InputError: if the data set is unknown, a setting does not apply to it, or a table has no signature.
    """
    entry = dataset_named(data)
    check_meaning(data, task, entry)
    if isinstance(entry, VolumeSet):
        return segmentation_task(data, task, entry)
    if signature is None:
        raise InputError(f"The task of dataset {data.name!r} is in its file, which `anysubset fit` reads.")
    return prediction_task(task, signature)


def create_dataset(
    data: DataSettings,
    task: TaskSettings,
    report: Callable[[str], None] = lambda line: None,
    signature: Signature | None = None,
    unlabelled: bool = False,
    start: Signature | None = None,
) -> Volumes | TableDataset:
    """Create the data set of an experiment. A table is read completely; patients are read when needed.

    Args:
        data: settings of the data.
        task: settings of the task.
        report: called with each line of text about what was read, and about splits that were drawn at random.
        signature: of the table on which a run was trained; by default computed from the training samples.
        unlabelled: whether a table may lack targets and splits, for prediction; unused for volumes.
        start: of the table of the weights from which training starts; None for volumes or random weights.

    Raises:
        InputError: if the data set is unknown or empty, its splits are faulty, or a setting does not apply to it.
    """
    entry = dataset_named(data)
    check_meaning(data, task, entry)
    if isinstance(entry, VolumeSet):
        return Volumes(data, segmentation_task(data, task, entry), report)
    return TableDataset(data, task, entry, signature, report, unlabelled, start)


def signature_in(path: Path, data: DataSettings) -> Signature | None:
    """Read the signature of a run on a table; None for a run on volumes, which has no such file.

    Args:
        path: of the signature file.
        data: settings of the run's data.

    Raises:
        InputError: if the file of a run on a table is missing or holds no signature.
    """
    return read_signature(path) if isinstance(dataset_named(data), TableSet) else None


def check_meaning(data: DataSettings, task: TaskSettings, entry: VolumeSet | TableSet) -> None:
    """Raise InputError if a setting that applies only to the other kind of data set differs from its default.

    Args:
        data: settings of the data.
        task: settings of the task.
        entry: the entry of the data set in `DATASETS`.
    """
    volumes = isinstance(entry, VolumeSet)
    settings = flatten({"data": asdict(data), "task": asdict(task)})
    defaults = flatten({"data": asdict(DataSettings()), "task": asdict(TaskSettings())})
    for name, value in settings.items():
        foreign = FOR_TABLES if volumes else FOR_VOLUMES
        if value != defaults.get(name) and any(name == other or name.startswith(f"{other}.") for other in foreign):
            kinds = ("volumes", "a table") if volumes else ("a table", "volumes")
            raise InputError(
                f"{name} does not apply to dataset {data.name!r}, which holds {kinds[0]}: it is for {kinds[1]}."
            )
