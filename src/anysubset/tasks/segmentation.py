"""The segmentation task: regions of a volume, which may overlap, from any subset of the modalities.

Networks train on patches of slices (2-D) or of volumes (3-D), as the length of `patch` says. A whole volume goes
through the network in overlapping windows of the patch's size. What is averaged over the windows is called `carried`:
logits of the regions, or class probabilities. What is decided from it, a bool mask for each region, is called
`prediction`.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from itertools import combinations

import torch
from monai.inferers import sliding_window_inference
from torch import Tensor

from anysubset.batches import Inputs, as_observed
from anysubset.errors import InputError, unknown
from anysubset.tasks.losses import cross_entropy, soft_dice
from anysubset.tasks.task import Function, Task

# Weights of a window's voxels where windows overlap -> MONAI's word for them.
WINDOWS = {"gaussian": "gaussian", "uniform": "constant"}


@dataclass(frozen=True)
class Segmentation(Task):
    """Regions of a volume.

    Args:
        regions: name -> label values; outer regions before those inside them, since `mask` paints later regions over
            earlier ones.
        patch: training size in voxels: two numbers for slices across the last axis, three for volumes.
        pool: "batch" sums the Dice loss over the batch, as in the paper; "sample" takes it for each sample.
        cross_entropy: weight of binary cross entropy beside the Dice loss; 0 in the paper. With it, small regions are
            learned sooner.
        overlap: share of the patch by which neighbouring windows overlap.
        window: weights of a window's voxels where windows overlap: "gaussian" (sigma an eighth of the patch, so the
            centre counts most) or "uniform".
        mirror: whether what the network gives is averaged over flips of the window, along every combination of the
            patch's axes; takes 2^d times as long, d the length of `patch`.
        skull_stripped: whether the air around the head has exactly one value; if not, the head is located first.
    """

    regions: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    patch: tuple[int, ...] = (96, 96, 96)
    pool: str = "batch"
    cross_entropy: float = 0.0
    overlap: float = 0.5
    window: str = "gaussian"
    mirror: bool = False
    skull_stripped: bool = True

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

    @property
    def labels(self) -> set[int]:
        """Label values that lie in at least one region."""
        return {value for values in self.regions.values() for value in values}

    # ---------------------------------------------------------------------- regions as mutually exclusive classes

    @property
    def classes(self) -> tuple[tuple[bool, ...], ...]:
        """Mutually exclusive classes, as softmax networks predict them: for each class, which regions it lies in.

        The background (no region) comes first, then every combination of regions that some label stands for, by the
        number of regions and then in the order of the regions. For BraTS: none; WT; WT+TC; WT+TC+ET.
        """
        combinations_of_labels = {self.regions_of(label) for label in self.labels}
        ordered = sorted(combinations_of_labels, key=lambda inside: (sum(inside), [not region for region in inside]))
        return ((False,) * len(self.regions), *ordered)

    def class_of(self, target: Tensor) -> Tensor:
        """Index into `classes` of every voxel: (n, regions, ...) bool -> (n, ...) int64.

        Raises InputError if regions meet in a voxel as in no class, such as TC outside WT. Label values never give
        such a target, so it was not made by `target`; taking it for background would train on a false label.
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

        A logit is log(p / q), where p is the probability of the likeliest class inside the region and q that of the
        likeliest class outside. It is positive exactly where the likeliest class of all lies in the region; where
        p = q it is 0, which counts as outside. The sum of the inner probabilities would be better calibrated, but its
        sign can differ from the argmax that softmax methods are scored by.
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
        """Whether the Dice loss is pooled over the batch."""
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
            (1, channels, X, Y, Z), what is `carried`.
        """
        names = tuple(inputs)

        def on_channels(window: Tensor) -> Tensor:
            return function(dict(zip(names, window.split(1, dim=1), strict=True)))

        stacked = torch.cat([observed.values for observed in as_observed(inputs).values()], dim=1)
        if len(self.patch) == 3:
            return self.in_windows(on_channels, stacked)
        # The slices of a volume are the batch of a 2-D network; 16 at a time, to bound memory.
        slices = stacked[0].movedim(-1, 0)
        carried = torch.cat([self.in_windows(on_channels, part) for part in slices.split(16)])
        return carried.movedim(0, -1)[None]

    def in_windows(self, function: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
        """MONAI's sliding window over the axes of the patch: (n, modalities, ...) -> (n, channels, ...)."""
        carried = sliding_window_inference(
            x,
            self.patch,
            sw_batch_size=4,
            predictor=self.mirrored(function) if self.mirror else function,
            overlap=self.overlap,
            mode=WINDOWS[self.window],
            padding_mode="constant",
        )
        return torch.as_tensor(carried)

    def mirrored(self, function: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
        """The mean of a function over flips of its input; its output is flipped back before the mean."""
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
        """Decide the regions: logits (n, regions, ...) -> bool of the same shape, true above 0 (probability 1/2)."""
        return logits > 0

    def target(self, labels: Tensor) -> Tensor:
        """Regions from label values: (X, Y, Z) -> (regions, X, Y, Z) bool."""
        return torch.stack([torch.isin(labels, torch.tensor(values)) for values in self.regions.values()])

    def mask(self, regions: Tensor) -> Tensor:
        """Label values from regions: (regions, X, Y, Z) bool -> (X, Y, Z) uint8.

        Where a voxel lies in the regions of one label or of several, it gets that label, or the first of them. Other
        combinations, such as TC outside WT, are painted: regions in their order, each in a label that no later region
        has, and later paint wins. For BraTS both come to 2 where WT, then 1 where TC, then 4 where ET.
        """
        painted = torch.zeros(regions.shape[1:], dtype=torch.uint8)
        names = list(self.regions)
        for index, (name, region) in enumerate(zip(names, regions, strict=True)):
            inner = {label for later in names[index + 1 :] for label in self.regions[later]}
            own = [label for label in self.regions[name] if label not in inner] or list(self.regions[name])
            painted[region] = own[0]
        # Of labels in the same regions, the first of the innermost region counts.
        label_of: dict[tuple[bool, ...], int] = {}
        for name in reversed(names):
            for label in self.regions[name]:
                label_of.setdefault(self.regions_of(label), label)
        for inside, label in label_of.items():
            painted[(regions == torch.tensor(inside).view(-1, 1, 1, 1)).all(dim=0)] = label
        return painted
