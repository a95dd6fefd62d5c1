"""Slices of patients with what a method answers from some contrasts, for the pictures of a report."""

from collections.abc import Iterator, Sequence

import numpy as np
import torch

from anysubset.methods.method import Method
from anysubset.report.pictures import Cut
from anysubset.scenarios import Scenario
from anysubset.volumes.dataset import Volumes, WholeVolume


@torch.no_grad()
def slices(
    method: Method, dataset: Volumes, split: str, patients: Sequence[str], scenarios: Sequence[Scenario]
) -> Iterator[tuple[str, Scenario, Cut]]:
    """A slice for each patient and scenario that the patient is eligible for.

    The slice across the last axis that has most of the outer region; the first contrast of the scenario is shown.

    A patient comes in the order of their foregrounds, not of the scenarios.

    Args:
        method: in the state in which it is to be seen; it is put into evaluation mode.
        dataset: whose task the method was made for.
        split: that has the patients.
        patients: by id.
        scenarios: those to be answered from.
    """
    method.eval()
    device = next(method.parameters()).device
    for sample in dataset.samples(split, scenarios, patients):
        inputs = {name: given.to(device) for name, given in sample.inputs.items()}
        for scenario, answer in method.predict_scenarios(inputs, sample.scenarios, dataset.task.carry):
            yield sample.ids[0], scenario, cut(sample, scenario, sample.whole(answer.cpu()))


def cut(sample: WholeVolume, scenario: Scenario, predicted: torch.Tensor) -> Cut:
    """Of (regions, X, Y, Z) bool; cropped to what the scenario sees."""
    areas = sample.target[0].sum(dim=(0, 1))
    place = int(areas.argmax()) if areas.any() else sample.target.shape[-1] // 2
    truth, answer = sample.box.of(sample.target), sample.box.of(predicted)
    place = min(max(place - sample.box.start[-1], 0), truth.shape[-1] - 1)
    image = sample.inputs[scenario[0]][0, 0]
    return Cut(
        scenario[0],
        np.asarray(image[..., place].cpu(), dtype=np.float32),
        truth[..., place].numpy(),
        answer[..., place].cpu().numpy(),
    )
