"""Predict whole groups of samples, such as the utterances of a video, for methods whose `unit` is "group".

Such a method gets one group at a time, in the order of the data. Its samples may have different modalities.
"""

from collections.abc import Iterable, Iterator, Mapping

from torch import Tensor

from anysubset.batches import Observed, eligible, keep, renumbered, sample_count
from anysubset.errors import InputError
from anysubset.methods.method import Method
from anysubset.scenarios import Scenario
from anysubset.tasks.task import Carry


def predict_group(
    method: Method, inputs: Mapping[str, Observed], scenarios: Iterable[Scenario], carry: Carry
) -> Iterator[tuple[Scenario, Tensor]]:
    """Predict the samples of one group in several scenarios.

    In a scenario, every sample of the group has those modalities of the scenario that are present; samples that have
    none of them are left out. Samples that lack some of them are context for the others, and are not scored.

    Args:
        method: of groups.
        inputs: by modality, the samples of the group that have it.
        scenarios: yielded in this order; at least one sample is eligible for each.
        carry: applies a function of training-sized inputs to whole samples.

    Yields:
        The scenario, and the outputs (n, ...) of the n samples that are eligible for it, in the order of the group.

    Raises:
        InputError: if the method does not return one output for each sample.
    """
    for scenario in scenarios:
        restricted = renumbered(keep(inputs, scenario))
        outputs = carry(method.predict, restricted)
        check_count(outputs, sample_count(restricted))
        yield scenario, outputs[eligible(restricted, scenario)]


def check_count(outputs: Tensor, samples: int) -> None:
    """Raise InputError unless there is one output for each sample."""
    if len(outputs) != samples:
        raise InputError(f"The method returned {len(outputs)} outputs for {samples} samples; it must return one each.")
