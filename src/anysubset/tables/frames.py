"""Join the frames of a data set in memory by the labels of their rows, such as pandas' index.

Frames of the same samples may be in different orders, or lack samples. Joining them by position would mix samples up
without an error.
"""

from collections.abc import Mapping
from typing import Any

from anysubset.errors import InputError
from anysubset.tables.table import shown


def in_one_order(X: Any, y: Any = None) -> Any:  # noqa: N803 (X is scikit-learn's name)
    """X with the rows of its frames in one order, by label.

    The order is that of y if y has labels, else that of the frames that have all samples. A frame that lacks samples
    gets rows of NaN, so they lack its modality. Arrays have no labels: they and a y without labels must be in this
    order. So must frames and y with the default labels 0, 1, 2, .. if all other labels are no whole numbers.

    Args:
        X: a dict of modalities, a frame, or anything else, which is returned as it is.
        y: the target, for training and scores.

    Raises:
        InputError: if labels are repeated, or do not say which rows belong together.
    """
    modalities = X if isinstance(X, Mapping) else {"X": X}
    frames = {str(name): values for name, values in modalities.items() if has_labels(values)}
    if not frames:
        return X
    labelled = {**frames, "y": y} if has_labels(y) else dict(frames)
    if not all(is_numbered(part.index) or part.index.inferred_type == "integer" for part in labelled.values()):
        labelled = {name: part for name, part in labelled.items() if not is_numbered(part.index)}
    indices = {name: part.index for name, part in labelled.items()}
    first = next(iter(indices.values()))
    if all(index.equals(first) for index in indices.values()):
        return X
    for name, index in indices.items():
        check_unique(name, index, *next(item for item in indices.items() if not item[1].equals(index)))
    order = indices["y"] if "y" in indices else complete_order(indices, y is not None)
    for name, index in indices.items():
        check_not_renumbered(name, index, order)
        unmatched = index[~index.isin(order)]
        if len(unmatched):
            raise InputError(f"{name} has samples that y lacks: {shown(map(repr, unmatched))}. Give y for them, too.")
    absent = order[~sum(order.isin(index) for name, index in indices.items() if name != "y").astype(bool)]
    if len(absent):
        raise InputError(f"X lacks samples of y: {shown(map(repr, absent))}. Give X and y for the same samples.")
    if not isinstance(X, Mapping):
        return X.loc[order]
    return {name: values.reindex(order) if str(name) in indices else values for name, values in X.items()}


def has_labels(values: Any) -> bool:
    """True for a frame or series with labels of rows, such as pandas'."""
    return hasattr(values, "iloc") and hasattr(values, "index")


def is_numbered(index: Any) -> bool:
    """True for the default labels 0, 1, 2, .., which a frame has if nobody has set others."""
    return (getattr(index, "start", None), getattr(index, "step", None)) == (0, 1)


def complete_order(indices: Mapping[str, Any], with_target: bool) -> Any:
    """The labels of the samples in the order of the frames that have all of them.

    Args:
        indices: labels of each frame.
        with_target: whether there is a y, which has no labels.

    Raises:
        InputError: if no frame has all samples, or those that have are in different orders.
    """
    names = list(indices)
    union = indices[names[0]]
    for name in names[1:]:
        union = union.union(indices[name], sort=False)
    complete = [name for name in names if len(indices[name]) == len(union)]
    target = "give y as a series with these labels, or " if with_target else ""
    if not complete:
        absent = [name for name in names if union[0] in indices[name]]
        raise InputError(
            f"No frame of X has all of the {len(union)} samples, so the order of the samples is not clear: {target}"
            f"reindex a frame to all samples, as in {absent[0]}.reindex(ids)."
        )
    for name in complete[1:]:
        if not indices[name].equals(indices[complete[0]]):
            raise InputError(
                f"{complete[0]} and {name} hold the same samples in different orders, so the order of the samples is "
                f"not clear: {target}order the frames alike, as in {name}.loc[{complete[0]}.index]."
            )
    return indices[complete[0]]


def check_unique(name: str, index: Any, other_name: str, other: Any) -> None:
    """Raise InputError if labels are repeated in one of two frames that differ in their labels."""
    for frame, labels in ((name, index), (other_name, other)):
        if not labels.is_unique:
            repeated = shown(map(repr, labels[labels.duplicated()].unique()))
            raise InputError(
                f"{frame} has labels more than once ({repeated}), and {name} and {other_name} do not have the same "
                "labels in the same order, so their rows cannot be joined: give every sample a label of its own."
            )


def check_not_renumbered(name: str, index: Any, order: Any) -> None:
    """Raise InputError if labels are those of the order, but one of the two has been numbered anew.

    After `reset_index`, or in a new series, the labels 0, 1, 2, .. are positions and not samples.
    """
    if index.equals(order) or not (is_numbered(index) or is_numbered(order)):
        return
    if len(index) == len(order) and index.isin(order).all():
        raise InputError(
            f"{name} and the other inputs have the labels 0 to {len(order) - 1} in different orders, and one of them "
            "has the default labels: give all of them the labels of the samples, or none (as in frame.to_numpy())."
        )
