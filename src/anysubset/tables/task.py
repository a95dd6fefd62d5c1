"""Creates the prediction task of a table from the settings and the signature."""

from anysubset.errors import InputError
from anysubset.experiments.settings import TaskSettings
from anysubset.tables.signature import Signature
from anysubset.tasks.prediction import Prediction


def prediction_task(settings: TaskSettings, signature: Signature) -> Prediction:
    """Create the task of a table.

    Args:
        settings: settings of the task; `error` is the loss of regression.
        signature: streams, classes and limits of the training data.

    Raises:
        InputError: if `error` is set and the target is a class.
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
