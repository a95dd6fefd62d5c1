"""The segmentation task: segment regions of a volume, which may overlap, from any subset of the modalities.

Networks are trained on patches of slices (2-D) or of volumes (3-D); the length of `patch` decides which. A whole volume
is divided into overlapping windows of the size of the patch, and the outputs of the network (logits of the regions or
class probabilities) are averaged over the windows. `prediction` turns logits into a bool mask for each region.
"""

import math
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field
from itertools import combinations

import torch
from torch import Tensor

from anysubset.batches import Inputs, as_observed
from anysubset.errors import InputError, unknown
from anysubset.tasks.losses import cross_entropy, soft_dice
from anysubset.tasks.task import Function, Task

# Weights of the voxels of a window in the average over windows: our name -> MONAI's name.
WINDOWS = {"gaussian": "gaussian", "uniform": "constant"}

# `threshold` of a task whose thresholds are chosen on validation, when the training ends.
VALIDATED = "validated"

NORMALISATIONS = ("zscore", "zscore_joint", "minmax")


@dataclass(frozen=True)
class Segmentation(Task):
    """Segmentation of the regions of a volume.

    Args:
        regions: name -> label values; outer regions before those inside them, since `mask` paints later regions over
            earlier ones.
        patch: size of the training patches in voxels: two numbers for slices across the last axis, three for volumes.
        pool: "batch" computes the Dice loss from sums over the batch, as in the paper; "sample" computes it for each
            sample.
        cross_entropy: weight of the binary cross entropy that is added to the Dice loss; 0 in the paper. It helps the
            network learn small regions sooner.
        overlap: share of the patch size by which neighbouring windows overlap.
        window: weights of the voxels of a window in the average over windows: "gaussian" (sigma is an eighth of the
            patch, so the centre has the largest weight) or "uniform".
        mirror: whether the output of the network is averaged over flips of the window along every combination of the
            axes of the patch; this takes 2^d times as long, where d is the length of `patch`.
        smallest: region -> number of voxels; a predicted region with fewer voxels is removed, with the regions inside
            it.
        threshold: probability above which a voxel belongs to a region: one for all regions, or region -> probability,
            1/2 for regions without one; or "validated", which is 1/2 until it is replaced at the end of the training.
        skull_stripped: whether all voxels around the brain have exactly the same value; if not, preparation locates
            the head first.
        normalise: how preparation scales intensities: "zscore" over the foreground of each modality, "zscore_joint"
            over that of all present modalities, or "minmax" over the whole volume.
        clip: lower and upper percentile of the foreground at which preparation clips intensities before it scales them;
            None for no clipping.

    Raises:
        InputError: if a setting is out of range.
    """

    regions: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    patch: tuple[int, ...] = (96, 96, 96)
    pool: str = "batch"
    cross_entropy: float = 0.0
    overlap: float = 0.5
    window: str = "gaussian"
    mirror: bool = False
    smallest: Mapping[str, int] = field(default_factory=dict)
    threshold: float | str | Mapping[str, float] = 0.5
    skull_stripped: bool = True
    normalise: str = "zscore"
    clip: tuple[float, ...] | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.regions:
            raise InputError("A segmentation task needs at least one region, such as regions: {tumour: [1]}.")
        for region, labels in self.regions.items():
            if not labels or 0 in labels:
                raise InputError(f"Region {region!r} needs labels other than 0 (the background).")
            if min(labels) < 0 or max(labels) > 255:
                raise InputError(f"Region {region!r} needs labels from 1 to 255, not {list(labels)}.")
        if len(self.patch) not in (2, 3) or min(self.patch) < 1:
            raise InputError(f"A patch has 2 or 3 positive sizes, not {list(self.patch)}.")
        if self.pool not in ("batch", "sample"):
            raise InputError(f"The loss is pooled over 'batch' or 'sample', not {self.pool!r}.")
        if self.cross_entropy < 0:
            raise InputError(f"The weight of cross entropy is 0 or more, not {self.cross_entropy}.")
        if not 0 <= self.overlap < 1:
            raise InputError(f"Windows overlap by a share from 0 to below 1, not {self.overlap}.")
        if self.window not in WINDOWS:
            raise unknown("window", self.window, WINDOWS)
        for region, count in self.smallest.items():
            if region not in self.regions:
                raise unknown("region of task.smallest", region, self.regions)
            if not isinstance(count, int) or isinstance(count, bool) or count < 1:
                raise InputError(f"task.smallest is a number of voxels from 1 for each region, not {region}: {count}.")
        self._check_threshold()
        if self.normalise not in NORMALISATIONS:
            raise unknown("data.normalise", self.normalise, NORMALISATIONS)
        if self.clip is not None and not (len(self.clip) == 2 and 0 <= self.clip[0] < self.clip[1] <= 100):
            raise InputError(f"data.clip is a lower and an upper percentile from 0 to 100, not {list(self.clip)}.")

    def _check_threshold(self) -> None:
        """Raise InputError unless the threshold is `VALIDATED`, or holds probabilities, of regions of the task."""
        for region in self.threshold if isinstance(self.threshold, Mapping) else ():
            if region not in self.regions:
                raise unknown("region of task.threshold", region, self.regions)
        if self.threshold == VALIDATED:
            return
        values = self.threshold.values() if isinstance(self.threshold, Mapping) else [self.threshold]
        for value in values:
            if not isinstance(value, int | float) or not 0 < value < 1:
                raise InputError(
                    f"task.threshold is a probability above 0 and below 1, one for each region, or {VALIDATED!r}, not "
                    f"{value!r}."
                )

    @property
    def labels(self) -> set[int]:
        """Label values that lie in at least one region."""
        return {value for values in self.regions.values() for value in values}

    # ---------------------------------------------------------------- regions as mutually exclusive classes

    @property
    def classes(self) -> tuple[tuple[bool, ...], ...]:
        """Mutually exclusive classes, as softmax networks predict them: for each class, which regions it lies in.

        The background (no region) comes first, then the set of regions of every label, sorted by the number of regions
        and then by the order of the regions. For BraTS: none; WT; WT+TC; WT+TC+ET.
        """
        combinations_of_labels = {self.regions_of(label) for label in self.labels}
        ordered = sorted(combinations_of_labels, key=lambda inside: (sum(inside), [not region for region in inside]))
        return ((False,) * len(self.regions), *ordered)

    def class_of(self, target: Tensor) -> Tensor:
        """Index into `classes` of every voxel: (n, regions, ...) bool -> (n, ...) int64.

        Raises InputError if the regions of a voxel are those of no class, such as TC without WT. `target` never
        computes such a target from label values; treating it as background would train on a wrong label.
        """
        indices = torch.full((target.shape[0], *target.shape[2:]), -1, dtype=torch.int64, device=target.device)
        for index, inside in enumerate(self.classes):
            pattern = torch.tensor(inside, device=target.device).view(1, -1, *[1] * (target.ndim - 2))
            indices[(target.bool() == pattern).all(dim=1)] = index
        unmatched = indices < 0
        if unmatched.any():
            first = target.movedim(1, -1)[unmatched][0].tolist()
            raise InputError(
                f"A target has {int(unmatched.sum())} voxels whose regions belong to no class, the first in "
                f"{self.names_of(first)} alone; the classes are: {'; '.join(map(self.names_of, self.classes))}."
            )
        return indices

    def of_classes(self, probabilities: Tensor) -> Tensor:
        """Logits of the regions from class probabilities: (n, classes, ...) -> (n, regions, ...) float32.

        A logit is log(p / q), where p is the probability of the most probable class inside the region and q that of
        the most probable class outside. It is positive exactly where the most probable class of all lies in the region;
        where p = q it is 0, which counts as outside. The sum of the probabilities inside would be better calibrated,
        but it can contradict the argmax, by which softmax methods are scored.
        """
        # The clamp keeps logits finite where a probability is exactly 0.
        logs = probabilities.float().clamp(min=torch.finfo(torch.float32).tiny).log()
        inside = torch.tensor(self.classes, device=logs.device).T
        return torch.stack([logs[:, own].amax(dim=1) - logs[:, ~own].amax(dim=1) for own in inside], dim=1)

    def regions_of(self, label: int) -> tuple[bool, ...]:
        """For each region, whether a label value lies in it."""
        return tuple(label in values for values in self.regions.values())

    def names_of(self, inside: Iterable[bool]) -> str:
        """Names of the regions that a class lies in, such as `WT+TC`; `none` for the background."""
        return "+".join(name for name, lies_in in zip(self.regions, inside, strict=True) if lies_in) or "none"

    # -------------------------------------------------------------------------------------------------- loss

    @property
    def pools_batch(self) -> bool:
        """Whether the Dice loss is computed from sums over the batch, so that it is not a mean over samples."""
        return self.pool == "batch"

    def loss(self, logits: Tensor, target: Tensor) -> Tensor:
        """Soft Dice loss, averaged over regions, plus `cross_entropy` times the binary cross entropy.

        Args:
            logits: (n, regions, ...).
            target: (n, regions, ...) bool.
        """
        loss = soft_dice(logits, target, self.pool)
        if self.cross_entropy:
            loss = loss + self.cross_entropy * cross_entropy(logits, target)
        return loss

    # --------------------------------------------------------------------------------------------- whole volumes

    def carry(self, function: Function, inputs: Inputs) -> Tensor:
        """Apply a function of patches to one whole volume, in overlapping windows.

        Args:
            function: by modality (n, 1, *patch) -> (n, channels, *patch). Its values are averaged over windows
                (weights: `window`) and flips (`mirror`), so their mean must have a meaning: logits or class
                probabilities, not decisions.
            inputs: (1, 1, X, Y, Z) for each modality.

        Returns:
            (1, channels, X, Y, Z), the values of the function averaged over windows.
        """
        names = tuple(inputs)

        def on_channels(window: Tensor) -> Tensor:
            return function(dict(zip(names, window.split(1, dim=1), strict=True)))

        stacked = torch.cat([observed.values for observed in as_observed(inputs).values()], dim=1)
        if len(self.patch) == 3:
            return self.in_windows(on_channels, stacked)
        # The slices of a volume are the batch of a 2-D network; 16 at a time, to bound memory.
        slices = stacked[0].movedim(-1, 0)
        averaged = torch.cat([self.in_windows(on_channels, part) for part in slices.split(16)])
        return averaged.movedim(0, -1)[None]

    def in_windows(self, function: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
        """Average a function over overlapping windows: (n, modalities, ...) -> (n, channels, ...)."""
        from monai.inferers import sliding_window_inference  # Only here, since loading MONAI takes seconds.

        averaged = sliding_window_inference(
            x,
            self.patch,
            sw_batch_size=4,
            predictor=self.mirrored(function) if self.mirror else function,
            overlap=self.overlap,
            mode=WINDOWS[self.window],
            padding_mode="constant",
        )
        return torch.as_tensor(averaged)

    def mirrored(self, function: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
        """A function that averages `function` over flips of the input; each output is flipped back first."""
        axes = range(2, 2 + len(self.patch))
        flips = [chosen for count in range(len(axes) + 1) for chosen in combinations(axes, count)]

        def mean_over_flips(x: Tensor) -> Tensor:
            # Summed one by one, so that memory does not grow with the number of flips.
            total = function(x)
            for flip in flips[1:]:
                total = total + function(x.flip(flip)).flip(flip)
            return total / len(flips)

        return mean_over_flips

    def prediction(self, logits: Tensor) -> Tensor:
        """Decide the regions of whole volumes: logits (n, regions, ...) -> bool of the same shape.

        True above the threshold, except in regions that are removed since they are smaller than `smallest`.
        """
        limits = [math.log(probability / (1 - probability)) for probability in self.thresholds.values()]
        decided = logits > torch.tensor(limits, device=logits.device).view(-1, *[1] * (logits.ndim - 2))
        names = list(self.regions)
        for name, least in self.smallest.items():
            small = decided[:, names.index(name)].flatten(1).sum(dim=1) < least
            for index, inner in enumerate(names):
                if set(self.regions[inner]) <= set(self.regions[name]):
                    decided[small, index] = False
        return decided

    @property
    def thresholds(self) -> dict[str, float]:
        """For each region, the probability above which a voxel belongs to it."""
        if isinstance(self.threshold, Mapping):
            return {region: self.threshold.get(region, 0.5) for region in self.regions}
        return dict.fromkeys(self.regions, 0.5 if isinstance(self.threshold, str) else self.threshold)

    @property
    def threshold_rule(self) -> str:
        """Sentence on the thresholds; "" if all are 1/2."""
        if self.threshold == VALIDATED:
            return "The probability above which a voxel belongs to a region was chosen on validation."
        rule = ", ".join(f"{region} {probability:g}" for region, probability in self.thresholds.items())
        plain = set(self.thresholds.values()) == {0.5}
        return "" if plain else f"A voxel belongs to a region above this probability: {rule}."

    @property
    def size_rule(self) -> str:
        """Sentence on the regions that are removed since they are small; "" if none are."""
        rule = ", ".join(f"{region} {count}" for region, count in self.smallest.items())
        return f"Regions with fewer voxels than this are removed: {rule}." if rule else ""

    def target(self, labels: Tensor) -> Tensor:
        """Regions of a volume of label values: (X, Y, Z) -> (regions, X, Y, Z) bool."""
        return regions_of_labels(labels, self.regions)

    def mask(self, regions: Tensor) -> Tensor:
        """Label values from regions: (regions, X, Y, Z) bool -> (X, Y, Z) uint8.

        If the regions of a voxel are exactly those of a label, it gets this label, or the first one of several such
        labels. Any other combination, such as TC without WT, is painted: region after region, each with a label that no
        later region has, so that later regions cover earlier ones. For BraTS both rules give 2 where WT, then 1 where
        TC, then 4 where ET.
        """
        painted = torch.zeros(regions.shape[1:], dtype=torch.uint8)
        names = list(self.regions)
        for index, (name, region) in enumerate(zip(names, regions, strict=True)):
            inner = {label for later in names[index + 1 :] for label in self.regions[later]}
            own = [label for label in self.regions[name] if label not in inner] or list(self.regions[name])
            painted[region] = own[0]
        # If several labels have the same regions, the first one listed for the innermost region counts.
        label_of: dict[tuple[bool, ...], int] = {}
        for name in reversed(names):
            for label in self.regions[name]:
                label_of.setdefault(self.regions_of(label), label)
        for inside, label in label_of.items():
            painted[(regions == torch.tensor(inside).view(-1, 1, 1, 1)).all(dim=0)] = label
        return painted


def regions_of_labels(labels: Tensor, regions: Mapping[str, Collection[int]]) -> Tensor:
    """Regions from label values: (...) -> (regions, ...) bool. regions: name of a region -> its label values."""
    inside = torch.zeros(len(regions), *labels.shape, dtype=torch.bool)
    for region, values in zip(inside, regions.values(), strict=True):
        for value in values:
            region |= labels == value
    return inside
