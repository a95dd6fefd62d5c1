"""Score every sample in every scenario; methods may compute each modality once for all scenarios."""

from collections.abc import Callable, Iterable, Iterator, Sequence

import torch
from torch import Tensor

from anysubset.batches import as_observed, eligible
from anysubset.datasets.dataset import Dataset, Sample
from anysubset.evaluation.finite import check_scores, nonfinite, nonfinite_error
from anysubset.evaluation.groups import predict_group
from anysubset.methods.method import Method
from anysubset.scenarios import Scenario, in_order
from anysubset.scoring.scores import Score, without
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
    """Scores of every sample in every scenario that it is eligible for, and metrics over the whole set.

    Several processes share the samples or groups, and all scores are returned on each process.

    Args:
        method: trained; scored in evaluation mode.
        dataset: with the task that the method was made for.
        split: of the dataset.
        asked: the scenarios; all by default.
        thorough: also compute the slow metrics beside `dice`, such as `hd95` (mm) and `ece`.
        progress: wraps the samples, for a progress bar.

    Raises:
        InputError: if a method of groups does not return one output for each sample, or the data have no groups.
        NonFiniteError: if a prediction or a score is NaN or infinite; it names the samples.
    """
    ids = dataset.ids(split)
    scores: list[Score] = []
    unpredicted: list[tuple[str, Scenario]] = []
    for sample, scenario, output in outputs_by_scenario(method, dataset, split, asked=asked, progress=progress):
        own = [sample.ids[row] for row in eligible(as_observed(sample.inputs), scenario).tolist()]
        missing = nonfinite(output, own) if len(output) == len(own) else []
        unpredicted += [(name, scenario) for name in missing]
        if not missing:
            scores += sample.scores(scenario, output, thorough)
    raise_unpredicted(processes.gathered(unpredicted), dataset.noun, len(ids))
    scores = processes.gathered(scores)
    # A sample may come in parts (see `samples`) and from any process: sort by scenario, then by the order of the ids.
    scenarios = in_order({score.scenario for score in scores}, dataset.task.modalities)
    scenario_index = {scenario: index for index, scenario in enumerate(scenarios)}
    sample_index = {sample: index for index, sample in enumerate(ids)}
    scores.sort(key=lambda score: (scenario_index[score.scenario], sample_index[score.sample]))
    check_scores(scores)
    over_set = dataset.over_set(scores)
    check_scores(over_set)
    return without(method.undefined_metrics, scores + over_set)


@torch.no_grad()
def outputs_by_scenario(
    method: Method,
    dataset: Dataset,
    split: str,
    *,
    asked: Sequence[Scenario] | None = None,
    progress: Callable[[Iterable[Sample]], Iterable[Sample]] = iter,
) -> Iterator[tuple[Sample, Scenario, Tensor]]:
    """Predict the samples of this process in evaluation mode, each in every scenario that it is eligible for.

    Yields:
        The sample, the scenario, and the output of the method for those that are eligible. See `evaluate`.
    """
    was_training = method.training
    method.eval()
    device = next(method.parameters()).device
    for sample in progress(dataset.samples(split, asked, dataset.own_ids(split, method.unit), method.unit)):
        inputs = {modality: values.to(device) for modality, values in sample.inputs.items()}
        if method.unit == "group":
            predicted = predict_group(method, as_observed(inputs), sample.scenarios, dataset.task.carry)
        else:
            predicted = method.predict_scenarios(inputs, sample.scenarios, dataset.task.carry)
        for scenario, output in predicted:
            yield sample, scenario, output
    method.train(was_training)


def raise_unpredicted(samples: Sequence[tuple[str, Scenario]], noun: str, total: int) -> None:
    """Raise NonFiniteError if samples have no finite prediction; `samples` with their scenarios, of all processes."""
    by_sample: dict[str, list[Scenario]] = {}
    for sample, scenario in samples:
        by_sample.setdefault(sample, []).append(scenario)
    if by_sample:
        raise nonfinite_error(by_sample, noun, total)
