"""What scikit-learn calls X, a dict, data frame or array, as modalities that samples may lack."""

# ruff: noqa: N803, N806 (X is scikit-learn's name)

import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import issparse
from sklearn.base import BaseEstimator
from sklearn.utils import check_array
from sklearn.utils.validation import validate_data

from anysubset.batches import Observed
from anysubset.errors import DataWarning, InputError, input_errors
from anysubset.tables.categories import categories_in, encoded, encoded_names, unknown_line
from anysubset.tables.column_groups import column_groups, with_plain_columns
from anysubset.tables.frames import has_labels
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

    modalities: name -> columns, by name, by number from 0, or a slice; or as `column_groups` takes them; None for a
        dict, for a single modality, or for a frame with several levels of column names.
    nan: "mean" if a sample may be NaN in part in a modality, where these values stay NaN; else "refuse".
    columns_: numbers of the columns of each modality in an array or frame; empty after training on a dict.
    categories_: categories of the training by modality and column, for the columns of frames that have them.
    grouped_: whether a sample may lack some of the columns of X.
    """

    modalities: Any
    nan: str
    columns_: dict[str, NDArray[np.int64]]
    categories_: dict[str, dict[str, list[str]]]
    grouped_: bool

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
            remedy = MAKE_MISSING if self.grouped_ else GROUP_COLUMNS
            inputs = {name: observed_in(name, columns, cells, remedy) for name, columns in values.items()}
            count = len(next(iter(values.values())))
            names = self.names_of_columns(X)
        else:
            if training and self.modalities is not None:
                raise InputError("modalities groups the columns of an array or frame; a dict names its modalities.")
            if training:
                self.columns_, self.categories_, self.grouped_ = {}, {}, True
                for name in ("n_features_in_", "feature_names_in_"):
                    if hasattr(self, name):
                        delattr(self, name)  # Left by an earlier training on an array.
            X = {name: self.with_categories(name, values, training) for name, values in X.items()}
            inputs, count = read_dict(X, samples, cells)
            names = {name: columns for name, values in X.items() if (columns := frame_columns(values))}
        if samples is not None and count != samples:
            raise InputError(f"X has {count} samples, and y {samples}.")
        return inputs, count, names

    def names_of_columns(self, X: Any) -> dict[str, tuple[str, ...]]:
        """Names of the columns of each modality, in the order of the training; empty for arrays."""
        if column_names(with_plain_columns(X)) is None or not hasattr(self, "feature_names_in_"):
            return {}
        names = self.feature_names_in_.tolist()
        return {
            name: encoded_names([names[number] for number in numbers], self.categories_.get(name, {}))
            for name, numbers in self.columns_.items()
        }

    def split_columns(self, X: Any, training: bool) -> dict[str, Array]:
        """Split an array or frame into the columns of each modality, (n, size)."""
        if not training and not self.columns_:
            raise InputError("The training was on a dict of modalities: give a dict, such as {'text': array}.")
        modalities = column_groups(self.modalities, X) if training else None
        X = with_plain_columns(X)
        names = column_names(X)
        if training:
            self.grouped_, self.categories_ = modalities is not None, {}
            if names is None:
                return self.split_array(X, training, modalities)
            modalities = {SINGLE_MODALITY: slice(None)} if modalities is None else modalities
            selected = {name: columns_by_name(name, columns, names) for name, columns in modalities.items()}
            check_disjoint(selected)
            self.categories_ = {name: own for name, columns in selected.items() if (own := categories_in(X, columns))}
            frame = X[[column for columns in selected.values() for column in columns]]
            ends = np.cumsum([len(columns) for columns in selected.values()]).tolist()
            groups = {name: slice(end - len(selected[name]), end) for name, end in zip(selected, ends, strict=True)}
            return self.split_array(frame, training, groups)
        if names is not None and self.grouped_ and hasattr(self, "feature_names_in_"):
            return self.split_frame(X, names)
        return self.split_array(X, training, None)

    def with_categories(self, modality: str, frame: Any, training: bool) -> Any:
        """A frame of a dict with its categories encoded, and their names; anything else as it is."""
        if not has_labels(frame) or (columns := column_names(frame)) is None or len(set(columns)) < len(columns):
            return frame
        if training and (own := categories_in(frame, columns)):
            self.categories_[modality] = own
        categories = self.categories_.get(modality)
        if not categories:
            return frame
        return type(frame)(self.encode(modality, frame, columns), columns=encoded_names(columns, categories))

    def encode(self, modality: str, frame: Any, columns: Sequence[str]) -> Array:
        """Encode the columns of a modality as numbers, (n, size); unknown categories are blank cells.

        Raises:
            InputError: if there are unknown categories and `nan` is "refuse".
        """
        categories = self.categories_.get(modality, {})
        with input_errors():
            values, unknown = encoded(frame, columns, categories)
        for column, new in unknown.items():
            line = unknown_line(modality, column, new, categories)
            if self.nan != "mean":
                raise InputError(f"{line} Set nan='mean' to treat them like blank cells.")
            warnings.warn(f"{line} They are treated like blank cells.", DataWarning, stacklevel=2)
        return values

    def split_array(self, X: Any, training: bool, modalities: Any) -> dict[str, Array]:
        """Check X as scikit-learn does, and split all its columns by modality.

        modalities: the columns of each in training; None for a single modality.
        """
        with input_errors():
            array = validate_data(
                self, X, reset=training, ensure_all_finite=False, skip_check_array=bool(self.categories_)
            )
        if training:
            groups = checked_modalities({SINGLE_MODALITY: slice(None)} if modalities is None else modalities)
            self.columns_ = {name: columns_by_number(name, columns, array.shape[1]) for name, columns in groups.items()}
            check_disjoint(self.columns_)
        if self.categories_:
            names = self.feature_names_in_
            return {name: self.encode(name, array, names[columns].tolist()) for name, columns in self.columns_.items()}
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
            if not absent and self.categories_:
                values[modality] = self.encode(modality, X, columns)
            elif not absent:
                with input_errors():
                    values[modality] = check_array(X[columns], ensure_all_finite=False)
        if not values:
            raise InputError(f"X has no columns of any modality; they are called {', '.join(self.feature_names_in_)}.")
        return values
