"""Every scenario on every sample, each modality computed once."""

from collections.abc import Callable, Iterable, Sequence

import torch

from anysubset import processes
from anysubset.data.volumes import Sample, Volumes
from anysubset.methods.method import Method
from anysubset.metrics import dice, hd95
from anysubset.modalities import Scenario, in_order
from anysubset.scores import Score


@torch.no_grad()
def evaluate(
    method: Method,
    dataset: Volumes,
    split: str,
    *,
    asked: Sequence[Scenario] | None = None,
    distances: bool = True,
    progress: Callable[[Iterable[Sample]], Iterable[Sample]] = iter,
) -> list[Score]:
    """Hard scores of every patient in every scenario that it is eligible for, on its whole volume.

    Several processes share the patients, and each has all scores in the end.

    Args:
        method: in the state in which it is to be scored; it is put into evaluation mode.
        dataset: whose task the method was made for.
        split: a name in the dataset's splits.
        asked: the scenarios; all by default.
        distances: whether to compute `hd95` (mm) beside `dice`; it takes longer than the network does.
        progress: wraps the samples, for a progress bar.
    """
    was_training = method.training
    method.eval()
    device = next(method.parameters()).device
    regions = list(dataset.task.regions)
    ids = dataset.ids(split)
    found = []
    for sample in progress(dataset.samples(split, asked, processes.share(ids))):
        inputs = {name: volume.to(device) for name, volume in sample.inputs.items()}
        for scenario, answer in method.predict_scenarios(inputs, sample.scenarios, dataset.task.carry):
            predicted = sample.whole(answer)
            values = {"dice": dice(predicted, sample.target)}
            if distances:
                values["hd95"] = hd95(predicted, sample.target, sample.spacing)
            found += [
                Score(scenario, sample.id, metric, region, value)
                for metric, numbers in values.items()
                for region, value in zip(regions, numbers.tolist(), strict=True)
            ]
    method.train(was_training)
    found = processes.gathered(found)
    # A patient may come in parts (see `samples`), and from any process: put all into the order of the table.
    scored = in_order({score.scenario for score in found}, dataset.task.modalities)
    order = {scenario: place for place, scenario in enumerate(scored)}
    place = {case: number for number, case in enumerate(ids)}
    return sorted(found, key=lambda score: (order[score.scenario], place[score.sample]))
