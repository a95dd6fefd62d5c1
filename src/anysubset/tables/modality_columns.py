"""What scikit-learn calls X, a dict, data frame or array, as modalities that samples may lack."""

# ruff: noqa: N803 (X is scikit-learn's name)

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import issparse
from sklearn.base import BaseEstimator
from sklearn.utils import check_array
from sklearn.utils.validation import validate_data

from anysubset.batches import Observed
from anysubset.errors import InputError, input_errors
from anysubset.tables.in_memory import (
    MAKE_MISSING,
    Array,
    check_disjoint,
    checked_modalities,
    column_names,
    columns_by_name,
    columns_by_number,
    frame_columns,
    observed_in,
    read_dict,
    with_nan,
)

SINGLE_MODALITY = "X"  # Name of the only modality of an array whose columns are not grouped.
GROUP_COLUMNS = "group the columns with modalities=, so that a group may be missing."


class ModalityColumns(BaseEstimator):  # type: ignore[misc]
    """The part of an estimator that reads X; it remembers the columns of the modalities from training.

    modalities: name -> columns, by name, by number from 0, or a slice; None for a dict, or for a single modality.
    nan: "mean" if a sample may be NaN in part in a modality, where these values stay NaN; else "refuse".
    columns_: numbers of the columns of each modality in an array or frame; empty after training on a dict.
    """

    modalities: Mapping[str, Any] | None
    nan: str
    columns_: dict[str, NDArray[np.int64]]

    def read(
        self, X: Any, training: bool, samples: int | None
    ) -> tuple[dict[str, Observed], int, dict[str, tuple[str, ...]]]:
        """Samples that have each modality, the number of samples in X, and names of the columns in frames by modality.

        Args:
            X: as in `AnySubset`.
            training: whether X is for training, and so determines the columns of the modalities.
            samples: the expected number of samples; None if any number is allowed.

        Raises:
            InputError: if X is no such input, or does not fit the input of the training.
        """
        cells = self.nan == "mean"
        if isinstance(X, list | tuple) and any(getattr(part, "ndim", 0) > 1 for part in X):
            raise InputError(
                f"X is a {type(X).__name__} of arrays: give a dict that names the modalities, as in {{'text': array}}."
            )
        if not isinstance(X, Mapping) or issparse(X):  # A sparse matrix may be a mapping, too.
            values = self.split_columns(with_nan(X), training)
            remedy = MAKE_MISSING if self.modalities is not None else GROUP_COLUMNS
            inputs = {name: observed_in(name, columns, cells, remedy) for name, columns in values.items()}
            count = len(next(iter(values.values())))
            names = self.names_of_columns(X)
        else:
            if training and self.modalities is not None:
                raise InputError("modalities groups the columns of an array or frame; a dict names its modalities.")
            if training:
                self.columns_ = {}
                for name in ("n_features_in_", "feature_names_in_"):
                    if hasattr(self, name):
                        delattr(self, name)  # Left by an earlier training on an array.
            inputs, count = read_dict(X, samples, cells)
            names = {name: columns for name, values in X.items() if (columns := frame_columns(values))}
        if samples is not None and count != samples:
            raise InputError(f"X has {count} samples, and y {samples}.")
        return inputs, count, names

    def names_of_columns(self, X: Any) -> dict[str, tuple[str, ...]]:
        """Names of the columns of each modality, in the order of the training; empty for arrays."""
        if column_names(X) is None or not hasattr(self, "feature_names_in_"):
            return {}
        names = self.feature_names_in_.tolist()
        return {name: tuple(names[number] for number in numbers) for name, numbers in self.columns_.items()}

    def split_columns(self, X: Any, training: bool) -> dict[str, Array]:
        """Split an array or frame into the columns of each modality, (n, size)."""
        if not training and not self.columns_:
            raise InputError("The training was on a dict of modalities: give a dict, such as {'text': array}.")
        names = column_names(X)
        if self.modalities is not None and names is not None:
            if training:
                modalities = checked_modalities(self.modalities)
                selected = {name: columns_by_name(name, columns, names) for name, columns in modalities.items()}
                check_disjoint(selected)
                frame = X[[column for columns in selected.values() for column in columns]]
                ends = np.cumsum([len(columns) for columns in selected.values()]).tolist()
                groups = {name: slice(end - len(selected[name]), end) for name, end in zip(selected, ends, strict=True)}
                return self.split_array(frame, training, groups)
            if hasattr(self, "feature_names_in_"):
                return self.split_frame(X, names)
        return self.split_array(X, training, self.modalities)

    def split_array(self, X: Any, training: bool, modalities: Any) -> dict[str, Array]:
        """Check X as scikit-learn does, and split all its columns by modality.

        modalities: the columns of each in training; None for a single modality.
        """
        with input_errors():
            array = validate_data(self, X, reset=training, ensure_all_finite=False)
        if training:
            groups = checked_modalities({SINGLE_MODALITY: slice(None)} if modalities is None else modalities)
            self.columns_ = {name: columns_by_number(name, columns, array.shape[1]) for name, columns in groups.items()}
            check_disjoint(self.columns_)
        return {name: array[:, columns] for name, columns in self.columns_.items()}

    def split_frame(self, X: Any, names: Sequence[str]) -> dict[str, Array]:
        """Split a frame by the column names of the training; all columns of a modality may be absent.

        names: of the columns of X.
        """
        values = {}
        for modality, numbers in self.columns_.items():
            columns = [str(name) for name in self.feature_names_in_[numbers]]
            absent = [name for name in columns if name not in names]
            if absent and len(absent) < len(columns):
                raise InputError(
                    f"X has some columns of {modality!r}, but not {absent[0]!r}: give all of them or none."
                )
            if not absent:
                with input_errors():
                    values[modality] = check_array(X[columns], ensure_all_finite=False)
        if not values:
            raise InputError(f"X has no columns of any modality; they are called {', '.join(self.feature_names_in_)}.")
        return values
