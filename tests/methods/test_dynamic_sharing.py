"""Dynamic Sharing predicts all scenarios from one forward pass per modality, whatever its head."""

from collections import Counter

import pytest
import torch
from torch import Tensor, nn
from torch.testing import assert_close

from anysubset.batches import Observed, keep
from anysubset.errors import InputError
from anysubset.methods.dynamic_sharing import DynamicSharing
from anysubset.scenarios import all_scenarios, default_cases
from anysubset.tasks.prediction import Prediction, Stream

NAMES = ("a", "b", "c")


def method_with(head: str) -> DynamicSharing:
    torch.manual_seed(0)
    task = Prediction(NAMES, {name: Stream("vector", 2) for name in NAMES})
    return DynamicSharing(task, cases="full", preset="utterance", width=4, head=head).double().eval()


def sample() -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(1)
    return {name: torch.randn(1, 2, generator=generator, dtype=torch.float64) for name in NAMES}


@pytest.mark.parametrize("head", ["linear", "norm", "residual"])
@torch.no_grad()
def test_every_scenario_is_predicted_after_one_forward_pass_per_modality(head: str):
    method, inputs = method_with(head), sample()
    passes: Counter[str] = Counter()
    method.network.backbone.register_forward_hook(lambda module, inputs, output: passes.update([inputs[1]]))
    predictions = dict(method.predict_scenarios(inputs, all_scenarios(NAMES)))
    assert passes == dict.fromkeys(NAMES, 1)
    assert len(predictions) == 7
    for scenario, prediction in predictions.items():
        assert_close(prediction, method.predict(keep(inputs, scenario)), rtol=0, atol=1e-12)


@torch.no_grad()
def test_an_affine_head_is_applied_before_the_mean_over_modalities_and_another_head_after_it():
    # Memory: predictions, (1, 1), are averaged over windows if the head is affine; else features, (1, 4).
    for head, carried, heads in (("linear", {(1, 1)}, 3), ("norm", {(1, 4)}, 7)):
        method = method_with(head)
        calls: list[nn.Module] = []
        sizes = set()
        method.network.head.register_forward_hook(lambda module, inputs, output, calls=calls: calls.append(module))

        def carry(function, inputs, sizes=sizes):
            result = function(inputs)
            sizes.add(tuple(result.shape))
            return result

        assert len(list(method.predict_scenarios(sample(), all_scenarios(NAMES), carry))) == 7
        assert sizes == carried
        assert len(calls) == heads


def test_the_default_cases_are_all_up_to_four_modalities():
    assert default_cases(("a", "b", "c", "d")) == "all"
    assert default_cases(("a", "b", "c", "d", "e")) == "random=5"


def test_samples_with_different_modalities_cannot_be_predicted_together():
    inputs = {
        "a": Observed(torch.randn(2, 2, dtype=torch.float64), torch.tensor([0, 1])),
        "b": Observed(torch.randn(2, 2, dtype=torch.float64), torch.tensor([1, 2])),
    }
    with pytest.raises(InputError, match="must have the same modalities"):
        list(method_with("norm").predict_scenarios(inputs, [("a", "b")]))
