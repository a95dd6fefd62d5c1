"""Creates the segmentation task of an experiment, for a public data set or for data of the user."""

from dataclasses import dataclass

from anysubset.errors import InputError
from anysubset.experiments.data_settings import DataSettings
from anysubset.experiments.settings import TaskSettings
from anysubset.tasks.segmentation import Segmentation


@dataclass(frozen=True)
class VolumeSet:
    """A data set of volumes in the table of data sets.

    summary: a description in one line.
    modalities: in the order of the task; empty if the settings must name them.
    regions: names and label values, outer regions first; empty if the settings must name them.
    skull_stripped: whether all voxels around the brain have exactly the same value.
    """

    summary: str
    modalities: tuple[str, ...] = ()
    regions: tuple[tuple[str, tuple[int, ...]], ...] = ()
    skull_stripped: bool = True

    @property
    def target(self) -> str:
        """Regions and their labels, in one line."""
        return "  ".join(f"{region} {list(labels)}" for region, labels in self.regions)


def segmentation_task(data: DataSettings, task: TaskSettings, public: VolumeSet) -> Segmentation:
    """Create the task of an experiment.

    Modalities and regions that the settings do not name are those of the data set.

    Args:
        data: settings of the data.
        task: settings of the task.
        public: entry of the data set in the table of data sets.

    Raises:
        InputError: if neither names modalities and regions, or a setting is out of range.
    """
    regions = dict(public.regions)
    if data.regions is not None:
        regions = {name: tuple(labels) for name, labels in data.regions.items()}
    modalities = public.modalities if data.modalities is None else tuple(data.modalities)
    lacking = [name for name, value in (("data.modalities", modalities), ("data.regions", regions)) if not value]
    if lacking:
        shown = "them" if len(lacking) > 1 else "them, or why no label can be read"
        raise InputError(
            f"Dataset {data.name!r} needs {' and '.join(lacking)}; `anysubset inspect {data.root}` shows {shown}."
        )
    return Segmentation(
        modalities=modalities,
        regions=regions,
        skull_stripped=public.skull_stripped if data.skull_stripped is None else data.skull_stripped,
        normalise=data.normalise,
        clip=None if data.clip is None else tuple(data.clip),
        patch=tuple(task.patch),
        pool=task.pool,
        cross_entropy=task.cross_entropy,
        overlap=task.overlap,
        window=task.window,
        mirror=task.mirror,
        smallest=task.smallest or {},
        threshold=task.threshold,
    )
