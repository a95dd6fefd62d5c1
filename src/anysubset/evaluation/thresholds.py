"""Choose, on validation, the probabilities above which voxels belong to the regions of a segmentation."""

from dataclasses import replace
from statistics import fmean

import torch

from anysubset.methods.method import Method
from anysubset.scoring.scores import Score, means
from anysubset.system import processes
from anysubset.volumes.dataset import Volumes

PROBABILITIES = (0.3, 0.35, 0.4, 0.45, 0.5, 0.55, 0.6, 0.65, 0.7)


@torch.no_grad()
def best_thresholds(method: Method, dataset: Volumes, split: str) -> dict[str, float]:
    """For each region, the one of `PROBABILITIES` with the best Dice: mean over patients, then over all scenarios.

    Of probabilities with equal Dice the one nearest to 1/2 is chosen. A region is scored with all regions at the same
    probability, which matters only to the removal of small regions. Several processes share the patients.

    Args:
        method: trained.
        dataset: with the task that the method was made for.
        split: of the data set.
    """
    was_training = method.training
    method.eval()
    device = next(method.parameters()).device
    scores: dict[float, list[Score]] = {probability: [] for probability in PROBABILITIES}
    for sample in dataset.samples(split, ids=dataset.own_ids(split)):
        inputs = {modality: volume.to(device) for modality, volume in sample.inputs.items()}
        for scenario, logits in method.predict_scenarios(inputs, sample.scenarios, dataset.task.carry):
            for probability, of_probability in scores.items():
                decided = replace(sample, task=replace(sample.task, threshold=probability))
                of_probability += decided.scores(scenario, logits, thorough=False)
    method.train(was_training)
    by_probability = {
        probability: means(processes.gathered(of_probability), "dice").values()
        for probability, of_probability in scores.items()
    }

    def quality(region: str, probability: float) -> tuple[float, float]:
        return fmean(regions[region] for regions in by_probability[probability]), -abs(probability - 0.5)

    return {
        region: max(PROBABILITIES, key=lambda probability: quality(region, probability))
        for region in dataset.task.regions
    }
