"""The part that classifier and regressor have in common: training, prediction, and scores of every scenario."""

# ruff: noqa: N803 (X is scikit-learn's name)

import tempfile
import warnings
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from statistics import fmean
from typing import Any, Self

import numpy as np
import torch
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_is_fitted, validate_data
from torch import Tensor

from anysubset.errors import DataWarning, InputError, input_errors, unknown
from anysubset.estimators.parameters import experiment_of
from anysubset.estimators.scenario_scores import ScenarioScores
from anysubset.estimators.weights import group_labels, scaled_to_training
from anysubset.evaluation.conformal import limits_of, prediction_sets
from anysubset.evaluation.finite import check_finite
from anysubset.evaluation.rows import predicted_blocks
from anysubset.methods.creation import method_of
from anysubset.methods.method import Method
from anysubset.methods.table import METHODS
from anysubset.scenarios import Scenario
from anysubset.scoring.scores import ALL
from anysubset.system import processes, tensor_file
from anysubset.system.devices import device_of
from anysubset.system.run_files import read_log
from anysubset.system.run_folder import RunFolder
from anysubset.tables.frames import has_labels, in_one_order
from anysubset.tables.in_memory import Array, InMemoryDataset
from anysubset.tables.modality_columns import ModalityColumns
from anysubset.tables.nan_cells import column_means, note_on_empty_columns, with_cells_filled
from anysubset.tables.observation import note_on_code
from anysubset.tables.repeated_rows import note_on_repeated_rows
from anysubset.tables.signature import signature_of
from anysubset.tables.splitting import hold_out
from anysubset.tables.table import Table
from anysubset.tables.targets import note_on_code as note_on_target_code
from anysubset.tables.task import prediction_task
from anysubset.tasks.temperatures import Temperatures
from anysubset.training.divergence import DivergedError
from anysubset.training.loop import train
from anysubset.training.run import Run


class AnySubset(ScenarioScores, ModalityColumns):
    """Base class of the classifier and the regressor.

    X is one of the following, in training and prediction; every sample needs at least one modality.

    - A dict of modalities: name -> (n, size), (n, time, size) or (n, channels, height, width). A sample lacks a
      modality where its row is entirely NaN, or masked; a step of a sequence that is entirely NaN is padding. Or name
      -> (array, indices): the samples that have the modality, and their indices in X, ascending from 0. For prediction,
      modalities may be left out.
    - A data frame, such as pandas', with `modalities` that name its columns; other columns are not read. A sample lacks
      a modality if all its columns are NaN. For prediction, all columns of a modality may be left out.
    - An array (n, size), with `modalities` that group its columns; without `modalities` it is a single modality `X`. A
      sample lacks a modality if all its columns are NaN.

    Columns of text or of pandas' categories become one column for each category of the training; a category that
    training did not have is treated like a blank cell. Infinite values are refused. A number that seems to stand for
    missing values, such as -9999, is a `DataWarning`, and so are rows of a modality that are the same in many samples,
    as after an imputer. Frames in a dict, and y, are joined by their labels (pandas' index): a sample that a frame
    lacks, lacks its modality. The samples are in the order of y if y has labels, else in that of the frames that have
    all samples. Columns of frames are taken by the names of the training, in any order.

    Args:
        modalities: name -> columns, by name, by number from 0, or a slice; not for a dict. For a frame also text, such
            as "_", at which the name of the modality ends in those of its columns (`rna_TP53`), or a function from the
            name of a column to that of its modality, or None for a column that is not read. By default a frame with
            several levels of column names has a modality for each name in the first one.
        method: one of `METHODS`.
        cases: option of the method; by default the method's own.
        rule: option of the method; by default the method's own.
        preset: the networks, one of `PRESETS`; by default `ds-transformer` if all modalities are sequences, else
            `vectors`.
        width: of the network; by default the preset's.
        layers: of its backbone; by default the preset's.
        dropout: by default the preset's.
        options: other options of the method and of its update rule, by name, such as {"strength": 1.0} of `linear`;
            `anysubset methods --json` lists them.
        nan: what becomes of single values that are NaN in a modality that the sample has: `mean` fills them with the
            mean of their column over the training samples, `refuse` raises InputError. A modality that is NaN
            throughout is missing in either case.
        steps: largest number of optimizer steps.
        patience: number of validations without a lower loss after which training ends early; None for never. There is
            a validation every 20 steps or 25 in a training, whichever are fewer, and at least 10.
        batch: samples per step; at most all samples.
        lr: the highest learning rate; the schedule is a cosine.
        weight_decay: L2, added to the gradient.
        validation_fraction: share of the samples for validation, stratified by class or by tercile of the target. The
            weights with the lowest mean loss over the scenarios are selected on them, and probabilities are calibrated.
            0 trains on all samples and keeps the last weights, uncalibrated.
        random_state: seed of the initial weights, batches, cases and validation samples.
        device: `auto`, `cpu`, `cuda` or `cuda:N`.
        verbose: above 0, each validation is printed.

    After training, `history_` has an entry for each validation: the `step`, the mean training `loss` over the cases at
    that step (absent for methods without gradients), the `validation` loss, and that of each scenario (`scenarios`).
    """

    error: str | None = None  # Loss of a regression.

    def __init__(
        self,
        *,
        modalities: Any = None,
        method: str = "gmd",
        cases: str | None = None,
        rule: str | None = None,
        preset: str | None = None,
        width: int | None = None,
        layers: int | None = None,
        dropout: float | None = None,
        options: Mapping[str, Any] | None = None,
        nan: str = "mean",
        steps: int = 500,
        patience: int | None = 5,
        batch: int = 64,
        lr: float = 1e-3,
        weight_decay: float = 1e-5,
        validation_fraction: float = 0.1,
        random_state: Any = None,
        device: str = "auto",
        verbose: int = 0,
    ) -> None:
        self.modalities = modalities
        self.method = method
        self.cases = cases
        self.rule = rule
        self.preset = preset
        self.width = width
        self.layers = layers
        self.dropout = dropout
        self.options = options
        self.nan = nan
        self.steps = steps
        self.patience = patience
        self.batch = batch
        self.lr = lr
        self.weight_decay = weight_decay
        self.validation_fraction = validation_fraction
        self.random_state = random_state
        self.device = device
        self.verbose = verbose

    def __sklearn_tags__(self) -> Any:
        """NaN is allowed if single values are filled in, or a sample may lack one of several groups of columns."""
        tags = super().__sklearn_tags__()
        tags.input_tags.allow_nan = self.nan == "mean" or self.modalities is not None
        tags.input_tags.dict = True
        return tags

    # ------------------------------------------------------------------------------------------------ training

    def target(self, y: Any, **options: bool) -> Array:
        """Check the target as scikit-learn does; an earlier training is discarded, even if this raises InputError."""
        if hasattr(self, "weights_"):
            del self.weights_
        if np.ma.is_masked(y):
            raise InputError(f"y is masked for {np.ma.count_masked(y)} samples: give X and y for the others.")
        if has_labels(y) and (lacking := int(np.asarray(y.isna()).sum())):
            raise InputError(f"y is NaN or NA for {lacking} samples: give X and y for the others.")
        with input_errors():
            shape = getattr(y, "shape", None) or np.asarray(y).shape
            several = len(shape) == 2 and shape[1] > 1
            target: Array = validate_data(self, y=y, **options, **({"multi_output": True} if several else {}))
        warn(note_on_target_code(target, "Values of y"))
        if not len(target):
            raise InputError("There are 0 samples; give at least one for training and one for validation.")
        return target

    def learn(self, X: Any, target: Tensor, constant: Tensor, weights: Array | None = None, groups: Any = None) -> Self:
        """Train on (n,) targets: indices of classes, or standardised numbers; or (n, targets) labels or numbers.

        Args:
            X: as in the class.
            target: (n,) or (n, targets).
            constant: (outputs,) of a prediction without any input.
            weights: (n,), of the samples in the loss; those of weight 0 are used neither in training nor in validation.
            groups: (n,), whose samples are either all for training or all for validation; or None.
        """
        inputs, _, columns = self.read(X, training=True, samples=len(target))
        for name, observed in inputs.items():
            if not len(observed.indices):
                raise InputError(f"No sample has {name!r}: leave it out of the training.")
            warn([*note_on_code(name, observed), *note_on_repeated_rows(name, observed)])
        ids = tuple(map(str, range(len(target))))
        seed = int(check_random_state(self.random_state).randint(np.iinfo(np.int32).max))
        used = np.arange(len(target)) if weights is None else np.flatnonzero(weights)
        splits = hold_out(
            [ids[sample] for sample in used],
            target[used],
            float(self.validation_fraction),
            seed,
            None if groups is None else group_labels(groups, len(target))[used].tolist(),
        )
        training = torch.zeros(len(target), dtype=torch.bool)
        training[[int(sample) for sample in splits["train"]]] = True
        for name, observed in inputs.items():
            if not training[observed.indices].any():
                none = "" if weights is None else ", or samples of weight 0,"
                raise InputError(f"Only validation samples{none} have {name!r}: set validation_fraction to 0.")
        means = {name: column_means(observed, training) for name, observed in inputs.items()}
        warn(line for name, by_column in means.items() for line in note_on_empty_columns(name, by_column))
        inputs = {name: with_cells_filled(observed, means[name]) for name, observed in inputs.items()}
        scaled = None if weights is None else scaled_to_training(weights, training)
        table = Table(ids, inputs, target, splits=splits, columns=columns, weights=scaled)
        if processes.several():
            raise InputError("Estimators train in one process; use `anysubset fit` under torchrun for several.")
        experiment = experiment_of(
            self.get_params(deep=False),
            seed,
            len(splits["train"]),
            validating="val" in splits,
            calibrating="val" in splits and target.ndim == 1,
            error=self.error,
        )
        device = device_of(experiment.train.device)
        signature = signature_of(table, list(inputs), None, list(splits))
        task = prediction_task(experiment.task, signature)
        if target.ndim > 1:
            task = replace(task, targets=target.shape[1], labels=self.error is None)
        dataset = InMemoryDataset(table, signature, task)
        forked = [device] if device.type == "cuda" else []
        with torch.random.fork_rng(forked), tempfile.TemporaryDirectory(prefix="anysubset-") as folder:
            torch.manual_seed(seed)
            generator = torch.Generator().manual_seed(seed)
            method, update = method_of(experiment.method, task, generator)
            if method.unit == "group":
                raise InputError(
                    f"Method {self.method!r} predicts whole groups of samples, which estimators do not take: choose "
                    "another method, or use anysubset.fit on a table with groups."
                )
            if weights is not None and not method.takes_weights:
                able = ", ".join(name for name, row in METHODS.items() if row.method.takes_weights)
                raise InputError(
                    f"Method {self.method!r} does not weigh samples: leave out the weights, or choose from: {able}."
                )
            if target.ndim > 1 and not method.takes_several_targets:
                able = ", ".join(name for name, row in METHODS.items() if row.method.takes_several_targets)
                raise InputError(
                    f"Method {self.method!r} is for one target: train it for each column of y, or choose from: {able}."
                )
            method.check_inputs(table.inputs)
            method.to(device)
            with Run(Path(folder) / "run", experiment) as run:
                try:
                    train(method, update, dataset, run, generator, report=print if self.verbose else silent)
                except DivergedError as error:
                    raise InputError(
                        f"Training diverged: {error.what}. Set a lower lr (now {self.lr:g}), or bring the values of "
                        "the modalities and the target into a common range."
                    ) from error
                self.history_ = history_of(RunFolder(run.path).losses)
                self.weights_, facts = tensor_file.load(run.best)
        self.experiment_, self.signature_ = experiment, signature
        self.task_ = replace(task, temperatures=Temperatures(**facts.get("temperatures", {})))
        self.conformal_ = facts.get("conformal")
        self.modalities_ = task.modalities
        self.constant_ = constant
        return self

    # ---------------------------------------------------------------------------------------------- prediction

    def dataset(self, X: Any, samples: int | None = None) -> InMemoryDataset:
        """Data set of the samples to predict. samples: their expected number.

        Raises:
            InputError: if a modality is unknown, or differs in kind or size from the training.
        """
        check_is_fitted(self, "weights_")
        inputs, count, columns = self.read(X, training=False, samples=samples)
        for name in inputs:
            if name not in self.modalities_:
                raise unknown("modality", name, self.modalities_)
        inputs = {
            name: with_cells_filled(observed, self.signature_.column_means(name, columns.get(name), observed))
            for name, observed in inputs.items()
            if len(observed.indices)
        }
        table = Table(tuple(map(str, range(count))), inputs, torch.zeros(count), columns=columns)
        table = self.signature_.with_columns(table)
        self.signature_.check(table)
        return InMemoryDataset(table, self.signature_, self.task_)

    def trained(self) -> Method:
        """The method with its trained weights, in float64.

        In float32 the prediction of a sample would depend on the other samples of its batch, by about 1e-7.
        """
        with torch.random.fork_rng([]):  # The constructor draws initial weights, which are replaced.
            method, _ = method_of(self.experiment_.method, self.task_)
        method.load_state_dict(self.weights_, strict=False)
        return method.eval().double().to(device_of(self.experiment_.train.device))

    @torch.no_grad()
    def outputs(self, X: Any) -> tuple[Tensor, list[Scenario]]:
        """Output of the network for each sample, (n, outputs) float64, and the modalities that it is predicted from."""
        dataset, method = self.dataset(in_one_order(X)), self.trained()
        outputs = torch.empty(len(dataset.table), self.task_.outputs, dtype=torch.float64)
        for block, _, block_outputs in predicted_blocks(method, dataset):
            check_finite(block_outputs, block.ids)
            outputs[[int(sample) for sample in block.ids]] = block_outputs
        return outputs, dataset.present("all")

    def sets(self, X: Any, coverage: float) -> Tensor:
        """Sets of classes (n, classes) bool, or intervals (n, 2) of standardised numbers, for a coverage."""
        outputs, scenarios = self.outputs(X)  # Raises NotFittedError before `conformal_` is read.
        if self.task_.several:
            raise InputError("Sets and intervals are for a single target: train an estimator for each column of y.")
        limits = limits_of(self.conformal_, scenarios, coverage)
        return prediction_sets(self.task_, outputs, scenarios, limits)


def history_of(log: Path) -> list[dict[str, Any]]:
    """The validations in the log of a run, each with the training loss of its step."""
    losses: dict[int, float] = {}
    history: list[dict[str, Any]] = []
    for entry in read_log(log):
        trained = {**entry.get("losses", {}), **entry.get("other_losses", {})}
        if trained:
            losses[entry["step"]] = fmean(trained.values())
        if "validation" in entry:
            scenarios = {name: by_region[ALL] for name, by_region in entry["scenarios"].items()}
            loss = {"loss": losses[entry["step"]]} if entry["step"] in losses else {}
            history.append({"step": entry["step"], **loss, "validation": entry["validation"], "scenarios": scenarios})
    return history


def silent(line: str) -> None:
    """Print nothing."""


def warn(lines: Iterable[str]) -> None:
    """Give each line as a DataWarning of the line of code that called `fit`, two calls above the caller."""
    for line in lines:
        warnings.warn(line, DataWarning, stacklevel=4)
