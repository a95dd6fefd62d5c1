"""Compute the states of frozen encoders for all training samples, before the first step."""

from collections.abc import Callable

from torch import nn

from anysubset.batches import as_observed
from anysubset.datasets.dataset import Dataset
from anysubset.methods.method import Method
from anysubset.models.pretrained import PretrainedEncoder


def keep_states(method: Method, dataset: Dataset, report: Callable[[str], None]) -> None:
    """Compute the states that frozen encoders keep, so that no step, and no count of its FLOPs, includes them.

    Args:
        method: on its device.
        dataset: has a prepared split `train`.
        report: called with a line, if there is such an encoder.
    """
    encoders = [
        (modality, encoder)
        for container in method.modules()
        if isinstance(container, nn.ModuleDict)
        for modality, encoder in container.items()
        if isinstance(encoder, PretrainedEncoder) and encoder.kept_states is not None
    ]
    if not encoders:
        return
    names = ", ".join(dict.fromkeys(modality for modality, _ in encoders))
    report(f"computing the states of {len(dataset.ids('train'))} training {dataset.noun} once: frozen {names}")
    device = next(method.parameters()).device
    for sample in dataset.samples("train"):
        inputs = as_observed(sample.inputs)
        for modality, encoder in encoders:
            if modality in inputs and encoder.kept_states is not None:
                observed = inputs[modality].to(device)
                encoder.kept_states.states(observed.values, observed.valid)
