"""Every scenario on every sample, each modality computed once."""

from collections.abc import Callable, Iterable, Sequence

import torch

from anysubset.datasets.dataset import Dataset, Sample
from anysubset.methods.method import Method
from anysubset.scenarios import Scenario, in_order
from anysubset.scoring.scores import Score
from anysubset.system import processes


@torch.no_grad()
def evaluate(
    method: Method,
    dataset: Dataset,
    split: str,
    *,
    asked: Sequence[Scenario] | None = None,
    thorough: bool = True,
    progress: Callable[[Iterable[Sample]], Iterable[Sample]] = iter,
) -> list[Score]:
    """The scores of every sample in every scenario that it is eligible for, and those over the whole set.

    Several processes share the samples, and each has all scores in the end.

    Args:
        method: in the state in which it is to be scored; it is put into evaluation mode.
        dataset: whose task the method was made for.
        split: a name in the dataset's splits.
        asked: the scenarios; all by default.
        thorough: whether to compute what takes long, too, such as `hd95` (mm) and `ece` beside `dice`.
        progress: wraps the samples, for a progress bar.
    """
    was_training = method.training
    method.eval()
    device = next(method.parameters()).device
    ids = dataset.ids(split)
    found: list[Score] = []
    for sample in progress(dataset.samples(split, asked, dataset.own_ids(split, method.unit), method.unit)):
        inputs = {name: given.to(device) for name, given in sample.inputs.items()}
        for scenario, answer in method.predict_scenarios(inputs, sample.scenarios, dataset.task.carry):
            found += sample.scores(scenario, answer, thorough)
    method.train(was_training)
    found = processes.gathered(found)
    # A sample may come in parts (see `samples`), and from any process: put all into the order of the table.
    scored = in_order({score.scenario for score in found}, dataset.task.modalities)
    order = {scenario: place for place, scenario in enumerate(scored)}
    place = {sample: number for number, sample in enumerate(ids)}
    found.sort(key=lambda score: (order[score.scenario], place[score.sample]))
    return found + dataset.over_set(found)
