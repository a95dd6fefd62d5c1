"""The prediction task that the settings and the signature of a table describe."""

from anysubset.errors import InputError
from anysubset.experiments.settings import TaskSettings
from anysubset.tables.signature import Signature
from anysubset.tasks.prediction import Prediction


def prediction_task(settings: TaskSettings, signature: Signature) -> Prediction:
    """Make the task of a table.

    Args:
        settings: the loss.
        signature: streams, classes and limits of the training data.

    Raises:
        InputError: if the loss does not fit the kind of target.
    """
    if signature.classes and settings.error is not None:
        raise InputError("task.error is for a target of numbers; classes are learned by cross entropy.")
    return Prediction(
        modalities=signature.modalities,
        streams=signature.streams,
        classes=signature.classes,
        limits=signature.limits,
        error=settings.error or "l1",
    )
