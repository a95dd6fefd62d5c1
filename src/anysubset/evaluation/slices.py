"""Slices of patients with prediction and ground truth, for the pictures of a report."""

from collections.abc import Iterator, Sequence

import numpy as np
import torch

from anysubset.methods.method import Method
from anysubset.report.pictures import Cut
from anysubset.scenarios import Scenario
from anysubset.volumes.dataset import Volumes
from anysubset.volumes.whole_volume import WholeVolume


@torch.no_grad()
def slices(
    method: Method, dataset: Volumes, split: str, patients: Sequence[str], scenarios: Sequence[Scenario]
) -> Iterator[tuple[str, Scenario, Cut]]:
    """Yield (patient, scenario, slice) for each scenario for which a patient is eligible, as `cut` selects the slice.

    The scenarios of a patient come grouped by their foreground box, not in the given order.

    Args:
        method: trained; it is put into evaluation mode.
        dataset: with the task of the method.
        split: that contains the patients.
        patients: ids.
        scenarios: from which predictions are made.
    """
    method.eval()
    device = next(method.parameters()).device
    for sample in dataset.samples(split, scenarios, patients):
        inputs = {name: image.to(device) for name, image in sample.inputs.items()}
        for scenario, prediction in method.predict_scenarios(inputs, sample.scenarios, dataset.task.carry):
            yield sample.ids[0], scenario, cut(sample, scenario, sample.whole(prediction.cpu()))


def cut(sample: WholeVolume, scenario: Scenario, predicted: torch.Tensor) -> Cut:
    """The slice across the last axis with the largest area of the outer region, or the middle one if it is empty.

    It shows the first modality of the scenario, cropped to the foreground box.

    Args:
        sample: a patient.
        scenario: from which the prediction was made.
        predicted: (regions, X, Y, Z) bool, on the whole volume.
    """
    areas = sample.target[0].sum(dim=(0, 1))
    index = int(areas.argmax()) if areas.any() else sample.target.shape[-1] // 2
    truth, prediction = sample.box.of(sample.target), sample.box.of(predicted)
    index = min(max(index - sample.box.start[-1], 0), truth.shape[-1] - 1)  # From the volume to the box.
    image = sample.inputs[scenario[0]][0, 0]
    return Cut(
        scenario[0],
        np.asarray(image[..., index].cpu(), dtype=np.float32),
        truth[..., index].numpy(),
        prediction[..., index].cpu().numpy(),
    )
