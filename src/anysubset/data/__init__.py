"""The datasets, and the table by which the rest knows them."""

from collections.abc import Callable

from anysubset.data.patients import BRATS
from anysubset.data.volumes import Volumes, VolumeSet, segmentation_task
from anysubset.errors import unknown
from anysubset.experiment import DataSettings, ModelSettings
from anysubset.segmentation import Segmentation

DATASETS: dict[str, VolumeSet] = {
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
}


def described(data: DataSettings) -> VolumeSet:
    """What is known of the dataset that the settings name.

    Raises:
        InputError: if there is no such dataset.
    """
    if data.name not in DATASETS:
        raise unknown("dataset", data.name, DATASETS)
    return DATASETS[data.name]


def create_task(data: DataSettings, model: ModelSettings) -> Segmentation:
    """The task that the settings describe; needs no data."""
    return segmentation_task(data, model, described(data))


def create_dataset(
    data: DataSettings, model: ModelSettings, report: Callable[[str], None] = lambda line: None
) -> Volumes:
    """The dataset that the settings describe; nothing is read yet but names and splits.

    Raises:
        InputError: if there is no such dataset, no patient, or the splits are faulty.
    """
    return Volumes(data, create_task(data, model), report)
