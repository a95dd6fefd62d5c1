"""The prediction task that the settings and the signature of a table describe, and checks of the table against it."""

from anysubset.errors import InputError
from anysubset.experiments.settings import ModelSettings
from anysubset.models.bert import sizes_of
from anysubset.tables.signature import Signature
from anysubset.tables.table import Table
from anysubset.tasks.prediction import Prediction


def prediction_task(model: ModelSettings, signature: Signature) -> Prediction:
    """Make the task of a table.

    Args:
        model: options of the network.
        signature: streams, classes and limits of the training data.

    Raises:
        InputError: if an option does not fit the kind of target or input.
    """
    kinds = {stream.kind for stream in signature.streams.values()}
    usual = "bert" if "tokens" in kinds else "ds-transformer" if kinds == {"sequence"} else "vectors"
    if model.width is not None and model.width != int(model.width):
        raise InputError(f"model.width is a whole number for tables, not {model.width}.")
    if signature.classes and model.error is not None:
        raise InputError("model.error is for a target of numbers; classes are learned by cross entropy.")
    return Prediction(
        modalities=signature.modalities,
        streams=signature.streams,
        classes=signature.classes,
        limits=signature.limits,
        error=model.error or "l1",
        preset=model.preset or usual,
        width=None if model.width is None else int(model.width),
        layers=model.layers,
        dropout=model.dropout,
        head=model.head,
        bert=model.bert,
    )


def check_lengths(table: Table, task: Prediction) -> None:
    """Raise InputError if sequences are longer than the preset takes."""
    for name, observed in table.inputs.items():
        if task.preset == "gmc" and observed.values.shape[1] > task.steps:
            raise InputError(
                f"{name} has sequences of {observed.values.shape[1]} steps, and preset 'gmc' takes up to {task.steps}; "
                "'ds-transformer' takes any."
            )


def check_tokens(table: Table, task: Prediction) -> None:
    """Raise InputError for token ids outside the vocabulary of the task's BERT, or more tokens than it takes.

    Raises:
        InputError: also if the folder holds no BERT.
    """
    for name, observed in table.inputs.items():
        if task.bert is None or observed.valid is None or task.streams[name].kind != "tokens":
            continue
        vocabulary, positions, _ = sizes_of(task.bert)
        greatest, longest = int(observed.values.max()), int(observed.valid.sum(dim=1).max())
        if not 0 <= int(observed.values.min()) <= greatest < vocabulary:
            raise InputError(f"{name} has token {greatest}, and the BERT in {task.bert} knows 0 to {vocabulary - 1}.")
        if longest > positions:
            raise InputError(f"{name} has {longest} tokens, and the BERT in {task.bert} takes up to {positions}.")
