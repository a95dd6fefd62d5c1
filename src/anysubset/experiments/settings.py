"""The settings of an experiment, as frozen dataclasses. Their docstrings are the help of the command line.

Those of the data and of training have files of their own. None of the three imports torch or MONAI, so that the command
line lists the settings without delay.
"""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from anysubset.errors import InputError
from anysubset.experiments.data_settings import GROUP_FILES, DataSettings
from anysubset.experiments.train_settings import TrainSettings
from anysubset.system.numbers import check_count, check_number, check_seed

# Settings that may differ when a run is resumed, since they do not change a bit of the result.
INCIDENTAL = (
    *("recipe", "data.root", "data.splits", "data.group", "data.missingness", "data.cache", "data.workers"),
    "method.encoders",
)

# Settings, groups of settings and values that had another name in an earlier version: old name -> new name. An old name
# is refused, so that a setting never has two names. If several old names match, the longest one counts.
RENAMED = {
    "data.holes": "data.missingness",
    "holes": "missingness",
    "holes.rates": "missingness.rate_by",
    "data.reading.group": "data.group",
    "missingness.rates": "missingness.rate_by",
    "model": "method",
    "model.patch": "task.patch",
    "model.pool": "task.pool",
    "model.cross_entropy": "task.cross_entropy",
    "model.overlap": "task.overlap",
    "model.window": "task.window",
    "model.mirror": "task.mirror",
    "model.error": "task.error",
    "train.bert_lr": "train.rates, by parameter names, such as {network.stems.text.pretrained.*: 2.0e-5}",
    "method.bert": "method.encoders, by modality, such as {text: FOLDER}",
}
RENAMED_VALUES = {("data.name", "features"): "table", ("method.preset", "bert"): "pretrained"}

# Options of `method` that describe its network. A variant of a sweep that names another method keeps them.
NETWORK_OPTIONS = (
    "preset",
    "width",
    "layers",
    "dropout",
    "head",
    "stem",
    "steps",
    "encoders",
    "frozen",
    "keep_states",
    "context",
)

# The largest values of options that make a network too large for any computer.
MOST_OPTIONS = {"width": 16_384, "layers": 1000, "steps": 10**6}
MOST_VOXELS = 2**31  # Of a patch.

# Groups whose names are not checked: the user chooses them, or they belong to a method.
OPEN = (
    "data.regions",
    "task.smallest",
    "task.threshold",
    "data.reading.modalities",
    "method",
    "train.rates",
    "train.stages",
)

# Groups that count as one setting, since the user chooses their names, which may have dots.
WHOLE = (
    "data.regions",
    "task.smallest",
    "task.threshold",
    "data.reading.modalities",
    "method.encoders",
    "train.rates",
    "train.stages.*.rates",
)


@dataclass(frozen=True)
class TaskSettings:
    """The size of the input, the loss, and how whole samples are predicted.

    Args:
        patch: size of the training patches in voxels: two numbers to train on slices across the last axis, three to
            train on volumes.
        pool: whether the Dice loss sums over the voxels of the "batch", as in the paper, or of each "sample".
        cross_entropy: weight of the binary cross entropy that is added to the Dice loss; 0 in the paper.
        overlap: share of the patch size by which neighbouring windows overlap in prediction.
        window: weights of the voxels of a window in the average over overlapping windows, "gaussian" or "uniform".
        mirror: whether predictions of volumes are averaged over flips along every combination of the axes of the patch;
            this takes 4 times as long for two axes, 8 times for three.
        smallest: region -> number of voxels, such as {ET: 500}: a predicted region with fewer voxels is removed, with
            the regions inside it, so that its voxels belong to the region around it. They are counted in the grid in
            which masks are written and scored. By default nothing is removed.
        threshold: probability above which a voxel belongs to a region: one for all regions, or region -> probability;
            or `validated`, where `fit` chooses one for each region at the end, by the Dice of the selected weights on
            validation, mean over all scenarios. It goes by the sigmoid of the method's logits.
        error: loss of regression: `l1` (mean absolute error, the default) or `mse` (mean squared error).
    """

    patch: list[int] = field(default_factory=lambda: [96, 96, 96])
    pool: str = "batch"
    cross_entropy: float = 0.0
    overlap: float = 0.5
    window: str = "gaussian"
    mirror: bool = False
    smallest: dict[str, int] | None = None
    threshold: float | dict[str, float] | str = 0.5
    error: str | None = None

    def __post_init__(self) -> None:
        for name in ("cross_entropy", "overlap"):
            check_number(f"task.{name}", getattr(self, name))
        if math.prod(max(size, 0) for size in self.patch) > MOST_VOXELS:
            raise InputError(f"task.patch {self.patch} has more than 2^31 voxels: choose a smaller patch.")


@dataclass(frozen=True)
class Experiment:
    """All settings of a run.

    Args:
        seed: seed of all random numbers: initial weights, order of samples, augmentation, cases, orders of projection.
        recipe: name of the recipe, for reports; by default the names of the files with settings of `method` or `train`.
        init: run folder or model file whose weights training starts from, with the same, fewer or more modalities, and
            other regions or classes; by default weights are drawn at random. The run records it as `weights:HASH`.
        data: location and contents of the data.
        task: the size of the input, the loss, and how whole samples are predicted.
        method: `name`, one of `anysubset methods`, and the options of that method and its network. With
            `gradients: gmd`, `rule` says how the gradients of the cases are combined: `sequential` (the paper),
            `averaged`, `index`, `simultaneous` and `normalised` project conflicting gradients; `norm` gives all the
            same length; `gated` is the plain sum until two conflict, then their shortest convex combination (MGDA,
            Desideri 2012); `upgrad` projects on all others at once (Quinton and Rey 2024); `worst` weighs case i of k
            by c_i = 0.9 q_i + 0.1 / k with q = softmax(losses / (0.5 mean loss)) (after group DRO, Sagawa et al. 2020);
            `none` is the plain sum; `torchjd=NAME` a weighting of TorchJD. `metric: adam` computes inner products of
            gradients with the weights 1 / (sqrt(v) + eps), v being the mean square of the gradient in the Adam or AdamW
            optimizer (Kingma and Ba 2015); the default is `euclidean`. docs/engine.md explains them.
        train: the training loop.

    Raises:
        InputError: if the seed or an option of the method is out of range, or a setting is an empty text.
    """

    seed: int = 0
    recipe: str | None = None
    init: str | None = None
    data: DataSettings = field(default_factory=DataSettings)
    task: TaskSettings = field(default_factory=TaskSettings)
    method: dict[str, Any] = field(default_factory=lambda: {"name": "gmd"})
    train: TrainSettings = field(default_factory=TrainSettings)

    def __post_init__(self) -> None:
        check_seed(self.seed)
        for name, value in self.flat().items():
            if value == "":  # It would count as a setting that was left out.
                raise InputError(f"The value of {name} is empty: give one, or leave the setting out.")
        for name, value in self.method.items():
            check_number(f"method.{name}", value)
            if name in MOST_OPTIONS and isinstance(value, int):
                check_count(f"method.{name}", value, -(2**63), MOST_OPTIONS[name])

    def flat(self) -> dict[str, Any]:
        """All settings by dotted name, such as `train.steps`."""
        return flatten(asdict(self))

    def anchored(self) -> "Experiment":
        """A copy with absolute paths, so that the run can be used from any working directory.

        A setting that may be something else, such as a column of groups, is changed only if it names an existing path.
        """
        group_file = self.data.group if (self.data.group or "").lower().endswith(GROUP_FILES) else None
        splits, group, missingness = map(resolved, (self.data.splits, group_file, self.data.missingness))
        group = self.data.group if group is None else group
        root = str(Path(self.data.root).resolve())
        data = replace(self.data, root=root, splits=splits, group=group, missingness=missingness)
        encoders = self.method.get("encoders")
        if not isinstance(encoders, Mapping):
            return replace(self, data=data)
        anchored = {name: resolved(path) if isinstance(path, str) else path for name, path in encoders.items()}
        return replace(self, data=data, method={**self.method, "encoders": anchored})

    def at(self, root: str | None, groups: bool = False) -> "Experiment":
        """A copy for data in another folder or file.

        Splits, folds and missingness are dropped, since they refer to the ids of the original data.

        Args:
            root: the other folder or file; None returns the experiment unchanged.
            groups: whether to keep `data.group`, for a method that predicts whole groups.
        """
        if root is None:
            return self
        group = self.data.group if groups else None
        data = replace(self.data, root=root, splits=None, group=group, folds=None, fold=0, missingness=None)
        return replace(self, data=replace(data, complete_only=False))

    def portable(self) -> "Experiment":
        """A copy that names no file or folder of this machine, for a model that is handed over.

        Raises:
            InputError: if the network reads pretrained encoders from folders.
        """
        if names_encoders(self.method):
            raise InputError(
                "The network reads its pretrained encoders from folders (method.encoders), which a model file does not "
                "hold: hand over the run folder and these folders."
            )
        data, none = self.data, DataSettings()
        words = None if data.reading.words is None else Path(data.reading.words).name
        reading = replace(data.reading, words=words, split=None)
        group = None if (data.group or "").lower().endswith(GROUP_FILES) else data.group
        elsewhere = replace(data, root=none.root, splits=None, group=group, missingness=None, cache=none.cache)
        return replace(self, data=replace(elsewhere, reading=reading))


def names_encoders(options: Any) -> bool:
    """True if the options of a method, or those of one of its parts, name folders of pretrained encoders."""
    if isinstance(options, Mapping):
        return bool(options.get("encoders")) or any(map(names_encoders, options.values()))
    return isinstance(options, list) and any(map(names_encoders, options))


def resolved(path: str | None) -> str | None:
    """The absolute path of an existing file or folder; anything else unchanged."""
    return str(Path(path).resolve()) if path is not None and Path(path).exists() else path


def flatten(settings: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested settings by dotted name; a group of `WHOLE` stays one setting, a dict.

    Args:
        settings: nested.
        prefix: dotted name of their group, with a dot at its end.
    """
    flat: dict[str, Any] = {}
    for name, value in settings.items():
        if isinstance(value, dict) and not any(fnmatchcase(prefix + name, whole) for whole in WHOLE):
            flat |= flatten(value, f"{prefix}{name}.")
        else:
            flat[prefix + name] = value
    return flat
