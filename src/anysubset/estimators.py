"""A classifier and a regressor in the manner of scikit-learn, on data in memory whose samples may lack modalities.

    >>> model = AnySubsetClassifier(modalities={"omics": slice(0, 40), "clinic": [40, 41]}, steps=300)
    >>> model.get_params()["method"]
    'gmd'

What they add to scikit-learn is `scenario_scores`: how good the answers are with each subset of the modalities.
"""

# ruff: noqa: N803 (X is scikit-learn's name)

import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from numbers import Integral, Real
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.sparse import issparse
from sklearn.base import BaseEstimator, ClassifierMixin, RegressorMixin
from sklearn.metrics import accuracy_score, r2_score
from sklearn.utils import check_array, check_random_state
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_is_fitted, validate_data
from torch import Tensor

from anysubset.batches import Observed
from anysubset.errors import InputError, one_line, unknown
from anysubset.evaluation.rows import inputs_of, predicted_blocks
from anysubset.experiments.settings import Experiment, TaskSettings, TrainSettings
from anysubset.methods.method import Method
from anysubset.methods.table import method_of
from anysubset.scenarios import Scenario, in_order, scenario_name
from anysubset.system import processes, tensor_file
from anysubset.system.devices import device_of
from anysubset.tables.folds import strata
from anysubset.tables.in_memory import (
    MAKE_MISSING,
    Array,
    InMemoryDataset,
    check_disjoint,
    checked_modalities,
    column_names,
    columns_by_name,
    columns_by_number,
    observed_in,
    read_dict,
    with_nan,
)
from anysubset.tables.signature import signature_of
from anysubset.tables.table import Table
from anysubset.tables.task import prediction_task
from anysubset.training.loop import train
from anysubset.training.run import Run

ONLY = "features"  # The one modality of an array whose columns are not grouped.
GROUPED = "group the columns with modalities=, so that a group may be missing."
VALIDATIONS = 10  # In a training, where there are samples to validate on.

# What a parameter may be; None stands for the default of the method, or of the preset.
KINDS: dict[str, tuple[Any, ...]] = {
    "method": (str,),
    "cases": (str, None),
    "rule": (str, None),
    "preset": (str, None),
    "width": (Integral, None),
    "layers": (Integral, None),
    "dropout": (Real, None),
    "steps": (Integral,),
    "batch": (Integral,),
    "lr": (Real,),
    "weight_decay": (Real,),
    "validation_fraction": (Real,),
    "device": (str,),
}
WORDS = {str: "text", Integral: "a whole number", Real: "a number", None: "None"}


class AnySubset(BaseEstimator):  # type: ignore[misc]
    """What the classifier and the regressor have in common.

    X is one of these, in training and after; a sample needs one modality at least.

    - A dict of modalities: name -> (n, size), (n, time, size) or (n, channels, height, width). A sample lacks a
      modality where its row is entirely NaN, or masked; a step of a sequence that is entirely NaN is padding. Or name
      -> (array, rows): the samples that have the modality, and their indices in X, ascending from 0. To predict, a
      modality that nobody has is left out.
    - A frame, such as pandas', with `modalities` that name its columns; other columns are not read. A sample lacks a
      modality where all its columns are NaN; to predict, all columns of a modality may be left out.
    - An array (n, size), with `modalities` that group its columns; without, it is one modality. A sample lacks a
      modality where all its columns are NaN.

    NaN in a part of a modality is refused, and so are infinite values.

    Args:
        modalities: name -> columns: names, numbers from 0, or a slice; not for a dict.
        method: one of `METHODS`.
        cases: of methods that have this option; by default as the method has it.
        rule: of methods that have this option; by default as the method has it.
        preset: the networks, one of `PRESETS`; by default `ds-transformer` for sequences alone, else `vectors`.
        width: of the network; by default the preset's.
        layers: of its backbone; by default the preset's.
        dropout: by default the preset's.
        steps: of the optimizer.
        batch: samples a step; all of them, where there are fewer.
        lr: learning rate at its highest; it falls as a cosine.
        weight_decay: L2, added to the gradient.
        validation_fraction: share of the samples, alike in every class or third of the targets, on which the best
            weights are chosen, by the mean loss over the scenarios; 0 trains on all, and the last weights are kept.
        random_state: of weights, batches, cases and the validation samples.
        device: `auto`, `cpu`, `cuda` or `cuda:N`.
    """

    error: str | None = None  # Of regression, what is learned to be small.
    columns_: dict[str, NDArray[np.int64]]  # By modality, of an array; empty after training on a dict.

    def __init__(
        self,
        *,
        modalities: Mapping[str, Any] | None = None,
        method: str = "gmd",
        cases: str | None = None,
        rule: str | None = None,
        preset: str | None = None,
        width: int | None = None,
        layers: int | None = None,
        dropout: float | None = None,
        steps: int = 500,
        batch: int = 64,
        lr: float = 1e-3,
        weight_decay: float = 1e-5,
        validation_fraction: float = 0.1,
        random_state: Any = None,
        device: str = "auto",
    ) -> None:
        self.modalities = modalities
        self.method = method
        self.cases = cases
        self.rule = rule
        self.preset = preset
        self.width = width
        self.layers = layers
        self.dropout = dropout
        self.steps = steps
        self.batch = batch
        self.lr = lr
        self.weight_decay = weight_decay
        self.validation_fraction = validation_fraction
        self.random_state = random_state
        self.device = device

    def __sklearn_tags__(self) -> Any:
        """NaN means missing where columns are grouped; where they are not, nothing would be left of the sample."""
        tags = super().__sklearn_tags__()
        tags.input_tags.allow_nan = self.modalities is not None
        tags.input_tags.dict = True
        return tags

    # ------------------------------------------------------------------------------------------------ training

    def target(self, y: Any, **options: bool) -> Array:
        """One of each sample, checked as scikit-learn does; what was learned before is gone, come what may."""
        if hasattr(self, "weights_"):
            del self.weights_
        with in_one_line():
            found: Array = validate_data(self, y=y, **options)
        if not len(found):
            raise InputError("There are 0 samples; it takes one to train on, and another to validate.")
        return found

    def learn(self, X: Any, target: Tensor) -> Self:
        """Trains on samples and (n,) classes by their numbers, or numbers of mean 0 and deviation 1."""
        inputs, _ = self.read(X, fresh=True, samples=len(target))
        for name, observed in inputs.items():
            if not len(observed.indices):
                raise InputError(f"No sample has {name!r}: leave it out of the training.")
        table = Table(tuple(map(str, range(len(target)))), inputs, target)
        seed = int(check_random_state(self.random_state).randint(np.iinfo(np.int32).max))
        splits = held_out(table, float(self.validation_fraction), seed)
        table = replace(table, splits=splits)
        for name in inputs:
            if name not in table.split("train").inputs:
                raise InputError(f"Only validation samples have {name!r}: set validation_fraction to 0.")
        if processes.several():
            raise InputError("Estimators train in one process; for several, there is `anysubset fit` under torchrun.")
        experiment = self.experiment(seed, len(splits["train"]), validating="val" in splits)
        device = device_of(experiment.train.device)
        signature = signature_of(table, list(inputs), None, list(splits))
        task = prediction_task(experiment.task, signature)
        held = InMemoryDataset(table, signature, task)
        forked = [device] if device.type == "cuda" else []
        with torch.random.fork_rng(forked), tempfile.TemporaryDirectory(prefix="anysubset-") as folder:
            torch.manual_seed(seed)
            generator = torch.Generator().manual_seed(seed)
            method, update = method_of(experiment.method, task, generator)
            method.check_inputs(table.inputs)
            method.to(device)
            with Run(Path(folder) / "run", experiment) as run:
                train(method, update, held, run, generator)
                self.weights_, _ = tensor_file.load(run.best)
        self.experiment_, self.signature_, self.task_ = experiment, signature, task
        self.modalities_ = task.modalities
        return self

    def experiment(self, seed: int, samples: int, validating: bool) -> Experiment:
        """The parameters as settings of a run."""
        steps = int(self.steps)
        options = {
            "cases": self.cases,
            "rule": self.rule,
            "preset": self.preset,
            "width": None if self.width is None else int(self.width),
            "layers": None if self.layers is None else int(self.layers),
            "dropout": None if self.dropout is None else float(self.dropout),
        }
        return Experiment(
            seed=seed,
            task=TaskSettings(error=self.error),
            method={"name": self.method, **{name: value for name, value in options.items() if value is not None}},
            train=TrainSettings(
                steps=steps,
                batch=min(int(self.batch), samples),
                lr=float(self.lr),
                weight_decay=float(self.weight_decay),
                schedule="cosine",
                clip=1.0,
                validate_every=max(1, steps // VALIDATIONS) if validating else max(1, steps),
                checkpoint_every=max(1, steps),
                log_every=max(1, steps),
                device=self.device,
            ),
        )

    def check_parameters(self) -> None:
        """Refuses what is of another kind than a parameter; settings, task and method refuse wrong values."""
        for name, kinds in KINDS.items():
            value = getattr(self, name)
            right = any(value is None if kind is None else isinstance(value, kind) for kind in kinds)
            if not right or isinstance(value, bool | np.bool_):
                raise InputError(f"{name} is {' or '.join(WORDS[kind] for kind in kinds)}, not {value!r}.")
        if not 0 <= self.validation_fraction < 1:
            raise InputError(f"validation_fraction is a share from 0 to below 1, not {self.validation_fraction}.")

    # ------------------------------------------------------------------------------------------------- answers

    def held(self, X: Any, samples: int | None = None) -> InMemoryDataset:
        """Samples to answer for.

        Raises:
            InputError: if there is something among them that the training did not know.
        """
        check_is_fitted(self, "weights_")
        inputs, found = self.read(X, fresh=False, samples=samples)
        for name in inputs:
            if name not in self.modalities_:
                raise unknown("modality", name, self.modalities_)
        inputs = {name: observed for name, observed in inputs.items() if len(observed.indices)}
        table = Table(tuple(map(str, range(found))), inputs, torch.zeros(found))
        self.signature_.check(table)
        return InMemoryDataset(table, self.signature_, self.task_)

    def trained(self) -> Method:
        """The method with the weights of the training, in float64.

        In float32 a sample would be answered otherwise, by 1e-7, among others than alone.
        """
        with torch.random.fork_rng([]):  # Its first weights are drawn, and not used.
            method, _ = method_of(self.experiment_.method, self.task_)
        method.load_state_dict(self.weights_, strict=False)
        return method.eval().double().to(device_of(self.experiment_.train.device))

    @torch.no_grad()
    def answers(self, X: Any) -> Tensor:
        """(n, outputs) float64: the answer of each sample from what it has."""
        held, method = self.held(X), self.trained()
        found = torch.empty(len(held.table), len(self.task_.classes) or 1, dtype=torch.float64)
        for block, _, answer in predicted_blocks(method, held):
            found[[int(sample) for sample in block.ids]] = answer
        return found

    @torch.no_grad()
    def scenario_scores(self, X: Any, y: Any) -> dict[str, float]:
        """What `score` is, for each scenario by its name (`audio+text`), on the samples that have all of it.

        A scenario that no sample has, has no key; one that a single sample has, has none for numbers.
        """
        y = np.asarray(y)
        held, method = self.held(X, len(y)), self.trained()
        places: dict[Scenario, list[int]] = {}
        answers: dict[Scenario, list[Tensor]] = {}
        for block in held.samples("all"):
            found = method.predict_scenarios(inputs_of(block, method), block.scenarios, self.task_.carry)
            for scenario, answer in found:
                places.setdefault(scenario, []).extend(int(sample) for sample in block.ids)
                answers.setdefault(scenario, []).append(answer.cpu())
        scores = {
            scenario_name(scenario): self.measure(y[places[scenario]], torch.cat(answers[scenario]))
            for scenario in in_order(places, self.modalities_)
        }
        return {name: score for name, score in scores.items() if score is not None}

    def measure(self, truth: Array, answers: Tensor) -> float | None:
        """The score of (n, outputs) answers to (n,) samples; None where it is not defined."""
        raise NotImplementedError

    # ---------------------------------------------------------------------------------------------------- data

    def read(self, X: Any, fresh: bool, samples: int | None) -> tuple[dict[str, Observed], int]:
        """Who has what of each modality, and how many samples there are.

        fresh: whether X is what is to be learned from. samples: how many there must be, if that is known.
        """
        if not isinstance(X, Mapping) or issparse(X):  # Of sparse matrices one is a dict.
            parts = self.parts(with_nan(X), fresh)
            remedy = MAKE_MISSING if self.modalities is not None else GROUPED
            found = {name: observed_in(name, part, remedy) for name, part in parts.items()}
            count = len(next(iter(parts.values())))
        else:
            if fresh and self.modalities is not None:
                raise InputError("modalities groups the columns of an array or frame; a dict names its modalities.")
            if fresh:
                self.columns_ = {}
                for name in ("n_features_in_", "feature_names_in_"):
                    if hasattr(self, name):
                        delattr(self, name)  # Of an earlier training.
            found, count = read_dict(X, samples)
        if samples is not None and count != samples:
            raise InputError(f"X has {count} samples, and y {samples}.")
        return found, count

    def parts(self, X: Any, fresh: bool) -> dict[str, Array]:
        """The columns of each modality, (n, size), of an array or frame."""
        if not fresh and not self.columns_:
            raise InputError("The training was on a dict of modalities: give a dict, such as {'text': array}.")
        names = column_names(X)
        if self.modalities is not None and names is not None:
            if fresh:
                modalities = checked_modalities(self.modalities)
                asked = {name: columns_by_name(name, columns, names) for name, columns in modalities.items()}
                check_disjoint(asked)
                return self.parts_of(X[[each for columns in asked.values() for each in columns]], fresh, asked)
            if hasattr(self, "feature_names_in_"):
                return self.known_parts(X, names)
        return self.parts_of(X, fresh, None)

    def parts_of(self, X: Any, fresh: bool, asked: Mapping[str, Sequence[str]] | None) -> dict[str, Array]:
        """Of all columns, checked as scikit-learn does; asked: by modality, the names of the columns, in order."""
        with in_one_line():
            array = validate_data(self, X, reset=fresh, ensure_all_finite=False)
        if fresh:
            groups = checked_modalities({ONLY: slice(None)} if self.modalities is None else self.modalities)
            if asked is not None:
                ends = np.cumsum([len(columns) for columns in asked.values()]).tolist()
                groups = {name: slice(end - len(asked[name]), end) for name, end in zip(asked, ends, strict=True)}
            self.columns_ = {name: columns_by_number(name, columns, array.shape[1]) for name, columns in groups.items()}
            check_disjoint(self.columns_)
        return {name: array[:, columns] for name, columns in self.columns_.items()}

    def known_parts(self, X: Any, names: Sequence[str]) -> dict[str, Array]:
        """Of a frame that may lack all columns of a modality."""
        parts = {}
        for modality, numbers in self.columns_.items():
            asked = [str(name) for name in self.feature_names_in_[numbers]]
            absent = [name for name in asked if name not in names]
            if absent and len(absent) < len(asked):
                raise InputError(
                    f"X has some columns of {modality!r}, but not {absent[0]!r}: give all of them or none."
                )
            if not absent:
                with in_one_line():
                    parts[modality] = check_array(X[asked], ensure_all_finite=False)
        if not parts:
            raise InputError(f"X has no columns of any modality; they are called {', '.join(self.feature_names_in_)}.")
        return parts


class AnySubsetClassifier(ClassifierMixin, AnySubset):  # type: ignore[misc]
    """A class for each sample, from any subset of its modalities; see `AnySubset` for X and the parameters.

    After the training it has `classes_`, `modalities_` and, where X was no dict, `n_features_in_`.
    """

    def fit(self, X: Any, y: Any) -> Self:
        """Trains on samples and their (n,) classes, which may be numbers or text."""
        self.check_parameters()
        y = self.target(y)
        with in_one_line():
            check_classification_targets(y)
        self.classes_, numbers = np.unique(y, return_inverse=True)
        if len(self.classes_) < 2:
            raise InputError(f"All {len(y)} samples are of 1 class, {self.classes_[0]!r}: nothing to tell apart.")
        return self.learn(X, torch.from_numpy(numbers.astype(np.int64)))

    def predict(self, X: Any) -> Array:
        """(n,): the likeliest class of each sample, from what it has."""
        answers = self.answers(X)
        classes: Array = self.classes_[answers.argmax(dim=1).numpy()]
        return classes

    def predict_proba(self, X: Any) -> Array:
        """(n, classes): how likely each class is, in the order of `classes_`."""
        return self.answers(X).softmax(dim=1).numpy()

    def measure(self, truth: Array, answers: Tensor) -> float:
        """Accuracy."""
        return float(accuracy_score(truth, self.classes_[answers.argmax(dim=1).numpy()]))


class AnySubsetRegressor(RegressorMixin, AnySubset):  # type: ignore[misc]
    """A number for each sample, from any subset of its modalities; see `AnySubset` for X and the parameters.

    The squared error is learned, of targets less their mean over their deviation; `score` is R2.
    """

    error = "mse"

    def fit(self, X: Any, y: Any) -> Self:
        """Trains on samples and their (n,) numbers, of any scale."""
        self.check_parameters()
        y = self.target(y, y_numeric=True).astype(np.float64)
        self.mean_, self.deviation_ = float(y.mean()), float(y.std()) or 1.0
        return self.learn(X, torch.from_numpy(((y - self.mean_) / self.deviation_).astype(np.float32)))

    def predict(self, X: Any) -> Array:
        """(n,): the number of each sample, from what it has."""
        return self.scaled(self.answers(X))

    def measure(self, truth: Array, answers: Tensor) -> float | None:
        """R2, which takes two samples."""
        return float(r2_score(truth, self.scaled(answers))) if len(truth) > 1 else None

    def scaled(self, answers: Tensor) -> Array:
        """(n, 1) answers in the units of the target, (n,)."""
        numbers: Array = answers[:, 0].numpy() * self.deviation_ + self.mean_
        return numbers


def held_out(table: Table, fraction: float, seed: int) -> dict[str, tuple[str, ...]]:
    """Ids to train on and, unless the fraction is 0, to validate on: that share of each class, or third of the targets.

    One at the least of each that has two; a class of one is trained on.

    Raises:
        InputError: if there is nobody to validate on.
    """
    if not fraction:
        return {"train": table.ids}
    generator, found = np.random.default_rng(seed), strata(table)
    held: set[int] = set()
    for stratum in np.unique(found).tolist():
        members = generator.permutation(np.flatnonzero(found == stratum)).tolist()
        held.update(members[: min(max(1, round(fraction * len(members))), len(members) - 1)])
    if not held:
        count = f"{len(table)} sample{'s' * (len(table) > 1)}"
        raise InputError(f"{count} cannot be shared out to train and to validate: set validation_fraction to 0.")
    return {
        "train": tuple(sample for number, sample in enumerate(table.ids) if number not in held),
        "val": tuple(sample for number, sample in enumerate(table.ids) if number in held),
    }


@contextmanager
def in_one_line() -> Iterator[None]:
    """What scikit-learn refuses, as the errors of this library are: one line."""
    try:
        yield
    except ValueError as error:
        raise InputError(one_line(error)) from error
