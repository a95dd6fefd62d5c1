from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor, nn

from anysubset.batches import Inputs
from anysubset.datasets.table import create_dataset
from anysubset.evaluation.thresholds import best_thresholds
from anysubset.experiments.data_settings import DataSettings
from anysubset.experiments.settings import TaskSettings
from anysubset.scenarios import Scenario
from anysubset.volumes.dataset import Volumes

INSIDE = {"WT": 0.42, "TC": 0.62, "ET": 0.9}  # Probability in the voxels of the reference.
OUTSIDE = {"WT": 0.38, "TC": 0.57, "ET": 0.1}


class Knowing(nn.Module):
    """Gives the probabilities of INSIDE in the reference of a patient, and those of OUTSIDE elsewhere."""

    def __init__(self, dataset: Volumes) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(()))
        (self.sample,) = dataset.samples("val")

    def predict_scenarios(
        self, inputs: Inputs, scenarios: list[Scenario], carry: object
    ) -> Iterator[tuple[Scenario, Tensor]]:
        reference = self.sample.box.of(self.sample.target)
        pairs = zip(reference, INSIDE.values(), OUTSIDE.values(), strict=True)
        logits = torch.stack([torch.where(region, inside, outside) for region, inside, outside in pairs]).logit()
        for scenario in scenarios:
            yield scenario, logits[None]


def test_the_threshold_of_a_region_separates_its_probabilities_and_is_one_half_where_all_do(phantoms: Path):
    dataset = create_dataset(DataSettings("phantom", str(phantoms)), TaskSettings([16, 16]))
    assert isinstance(dataset, Volumes)
    method = Knowing(dataset)
    # .4 alone lies between .38 and .42, and .6 between .57 and .62; every probability of the grid between .1 and .9.
    assert best_thresholds(method, dataset, "val") == {"WT": 0.4, "TC": 0.6, "ET": 0.5}
