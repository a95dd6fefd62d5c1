"""Settings of an experiment: location and contents of the data."""

from dataclasses import dataclass, field
from typing import Any

from anysubset.errors import InputError
from anysubset.system.numbers import check_count

# Value of data.spacing in place of numbers.
MEDIAN = "median"

# A value of data.group that ends in one of these is the path of a file.
GROUP_FILES = (".csv", ".json")

MOST_WORKERS = 1024


@dataclass(frozen=True)
class AugmentSettings:
    """Random augmentation of training patches, the same for every method.

    Args:
        flip: probability of a flip along an axis of the patch; the axes are drawn independently.
        affine: probability of an in-plane rotation (up to 15 degrees) and zoom (up to 15 %).
        rotation: largest angle in degrees, from 0 to 180, by which every patch is rotated at random about all axes;
            slices are rotated in their plane. RFNet uses 10.
        intensity: largest random change of the intensities of a modality: of their scale, as a share, and of their
            offset, in standard deviations.
        foreground: share of patches that are centred on a voxel of a region.
        nnunet: whether the augmentation of nnU-Net (Isensee et al., 2021) replaces `affine`, `rotation` and
            `intensity`: rotation, scaling, noise, blur, brightness, contrast, low resolution and gamma. `flip` is its
            mirroring.

    Raises:
        InputError: if a value is out of range, or one that `nnunet` replaces is given beside it.
    """

    flip: float = 0.5
    affine: float = 0.3
    rotation: float = 0.0
    intensity: float = 0.1
    foreground: float = 0.5
    nnunet: bool = False

    def __post_init__(self) -> None:
        for name in ("flip", "affine", "intensity", "foreground"):
            if not 0 <= getattr(self, name) <= 1:
                raise InputError(f"data.augment.{name} is a share from 0 to 1, not {getattr(self, name)}.")
        if not 0 <= self.rotation <= 180:
            raise InputError(f"data.augment.rotation is an angle from 0 to 180 degrees, not {self.rotation}.")
        for name in ("affine", "rotation", "intensity"):
            if self.nnunet and getattr(self, name) != getattr(AugmentSettings, name):
                raise InputError(f"data.augment.nnunet replaces data.augment.{name}: leave out one of them.")


@dataclass(frozen=True)
class ReadingSettings:
    """How a table is read, as far as its file does not say so itself.

    Args:
        modalities: name of a modality -> its name in the file; a modality with the same name may be left out.
        target: name of the target in the file; by default `y`, or the usual name in the layout of the file.
        kind: kind of the target, `regression` or `classes`; by default floats are for regression, and integers,
            booleans and names are classes. Must be set for integers with fewer than three samples for each value.
        column: index from 0 of the column to use if the target has several.
        id: name of the sample ids in the file; by default the usual name in the layout of the file.
        split: name of the splits in the file; by default the usual name in the layout of the file. For `.csd` files,
            the path of a file with the split of each video.
        images: modalities of shape (samples, height, width) that are images of one channel, not sequences.
        padding: where rows of zeros in a sequence are padding: at the `front`, at the `end` or nowhere (`none`).
        words: the `.csd` file with the words to whose times all other modalities are aligned.
        clean: `zero` replaces values that are NaN, infinite or beyond float32 by 0; by default they are refused. A
            sample whose values of a modality are all NaN lacks the modality.
        empty: `drop` leaves out samples without any modality; by default they are refused.
    """

    modalities: dict[str, str] | None = None
    target: str | None = None
    kind: str | None = None
    column: int | None = None
    id: str | None = None
    split: str | None = None
    images: list[str] = field(default_factory=list)
    padding: str | None = None
    words: str | None = None
    clean: str | None = None
    empty: str | None = None


@dataclass(frozen=True)
class DataSettings:
    """Location and contents of the data.

    Args:
        name: name of the dataset, one of `anysubset datasets`; it sets modalities and regions unless `modalities` and
            `regions` do.
        root: for volumes the folder of patient folders, the Medical Decathlon folder or the CSV manifest; for a table
            its file or folder.
        splits: JSON file of splits, or folder of text files of ids. By default `splits.json`, or `train.txt`,
            `val.txt` and `test.txt`, under the root; for a table, the splits in its file.
        group: which samples belong together, such as the scans of a patient or the utterances of a video. A value that
            ends in .csv or .json is a file (columns `id`, `group`; or id -> group). Any other value with a parenthesis
            is a regular expression with one group, which takes the patient or video from an id, such as
            `(.+)_[0-9]+`. Any other value, for tables only, is the name of the column of groups; by default `group`, or
            the usual name in the layout of the file. Splits and folds that are drawn keep groups together; a split file
            that separates a group is reported.
        modalities: names of the modalities, in the order of the task.
        regions: name of a region -> its label values, outer regions first.
        skull_stripped: whether all voxels around the brain have exactly the same value. If false, the head is located
            first, so that scanner noise enters neither the z-score nor the foreground. By default as the dataset is.
        resample: for patients whose files have different grids, the modality whose grid is used, or `finest`: the grid
            of the modality with the smallest voxels. Images are interpolated linearly, labels have the nearest value.
            If a patient lacks the modality, the first one that is present in the order of the task is used. By default
            such patients are refused.
        spacing: size of a voxel in mm to the right, anterior and superior, to which all patients are resampled, such as
            [1, 1, 1]; or `median`, that of the training patients, which the run records. By default that of the files.
        normalise: how the intensities of a modality are scaled. `zscore`: mean 0 and standard deviation 1 over its own
            foreground, background 0. `zscore_joint`: the same over all voxels where any present modality has
            foreground; the background is shifted and scaled, too, as in RFNet. `minmax`: from 0 to 1 over the whole
            volume, background included.
        clip: two percentiles of the own foreground, such as [1, 99], at which intensities are clipped before they are
            scaled. By default they are not clipped.
        cache: where prepared patients are stored: "memory", or a folder.
        workers: number of processes that prepare training patches; 0 to prepare them in the training process.
        augment: random augmentation of training patches.
        folds: number of folds into which the data are divided at random, with groups and the scans of a patient kept
            together. Those of a table are stratified by class or tercile of the target, those of patients with a label
            by the modalities in their files. The folds replace all other splits.
        fold: index from 0 of the fold that is the test split; the next fold is the validation split.
        missingness: JSON file of the modalities that each sample keeps, by id, as `anysubset ampute` writes it.
        complete_only: whether to leave out training samples that lack a modality, in the data or by `missingness`.
        as_stored: modalities of a table that are not standardised, such as pixel values that are already scaled as a
            pretrained encoder expects them. Others have mean 0 and standard deviation 1 over the training samples.
        reading: how a table is read.

    Raises:
        InputError: if a number is out of range.
    """

    name: str = "volumes"
    root: str = "."
    splits: str | None = None
    group: str | None = None
    modalities: list[str] | None = None
    regions: dict[str, list[int]] | None = None
    skull_stripped: bool | None = None
    resample: str | None = None
    spacing: list[float] | str | None = None
    normalise: str = "zscore"
    clip: list[float] | None = None
    cache: str = "memory"
    workers: int = 0
    augment: AugmentSettings = field(default_factory=AugmentSettings)
    folds: int | None = None
    fold: int = 0
    missingness: str | None = None
    complete_only: bool = False
    as_stored: list[str] = field(default_factory=list)
    reading: ReadingSettings = field(default_factory=ReadingSettings)

    def __post_init__(self) -> None:
        check_count("data.workers", self.workers, 0, MOST_WORKERS)
        if self.spacing not in (None, MEDIAN) and not is_spacing(self.spacing):
            raise InputError(f"data.spacing is three sizes of a voxel in mm, or median, not {self.spacing}.")
        if len(set(self.modalities or ())) < len(self.modalities or ()):
            raise InputError(f"data.modalities names a modality twice: {', '.join(map(str, self.modalities or ()))}.")
        for region in self.regions or {}:
            if not isinstance(region, str):  # The command line and Python may pass what YAML makes of `no` or `1`.
                raise InputError(f"data.regions has the name {region!r}: put it in quotes, such as 'no' or '1'.")
        if self.folds is not None and self.folds < 3:
            raise InputError(f"data.folds must be at least 3, to train, validate and test, not {self.folds}.")
        if not 0 <= self.fold < (self.folds or 1):
            raise InputError(f"data.fold counts from 0 to below data.folds ({self.folds or 1}); it is {self.fold}.")


def is_spacing(value: Any) -> bool:
    """True for a list of three sizes of a voxel in mm, from a nanometre to a metre."""
    return isinstance(value, list) and len(value) == 3 and all(1e-6 <= size <= 1e3 for size in value)
