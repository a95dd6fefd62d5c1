"""Early fusion: the order of the channels, and what stands in place of a missing modality."""

import pytest
import torch
from torch import Tensor, nn

from anysubset.batches import Observed
from anysubset.models.early import EarlyFusion
from anysubset.models.network import shared_parameters
from anysubset.scenarios import all_scenarios

NAMES = ("t1", "t2", "flair")


def volumes(size: tuple[int, ...] = (4, 5)) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(0)
    return {name: torch.randn(2, 1, *size, generator=generator) for name in NAMES}


def test_channels_are_in_the_order_of_the_task_with_zeros_for_missing_modalities():
    network, inputs = EarlyFusion(NAMES, nn.Identity()), volumes()
    assert network.encode("t1", inputs["t1"]) is inputs["t1"]
    joined = network.decode({"flair": inputs["flair"], "t1": inputs["t1"]})
    assert torch.equal(joined, torch.cat([inputs["t1"], torch.zeros(2, 1, 4, 5), inputs["flair"]], dim=1))


@pytest.mark.parametrize("size", [(6, 6), (4, 4, 4)], ids=["slices", "volumes"])
def test_a_missing_modality_equals_a_channel_of_zeros_to_the_bit(size: tuple[int, ...]):
    # K3
    torch.manual_seed(0)
    convolution = (nn.Conv2d if len(size) == 2 else nn.Conv3d)(3, 2, kernel_size=3)
    network, inputs = EarlyFusion(NAMES, convolution), volumes(size)
    outputs = []
    for scenario in all_scenarios(NAMES):
        output = network.decode({name: inputs[name] for name in scenario})
        channels = [x if name in scenario else torch.zeros_like(x) for name, x in inputs.items()]
        assert torch.equal(output, convolution(torch.cat(channels, dim=1)))
        outputs.append(output)
    assert len({tuple(output.flatten().tolist()) for output in outputs}) == 7


def test_nan_in_a_modality_outside_the_scenario_never_arrives():
    torch.manual_seed(0)
    network, inputs = EarlyFusion(NAMES, nn.Conv2d(3, 2, kernel_size=3)), volumes()
    inputs["t2"].fill_(torch.nan)
    features = network.features({name: Observed(x, torch.arange(2)) for name, x in inputs.items()})
    output, _ = network.output_of_case(features, ("t1", "flair"))
    output.sum().backward()
    assert output.isfinite().all()
    for parameter in network.parameters():
        assert parameter.grad is not None
        assert parameter.grad.isfinite().all()
    assert network.output_of_case(features, ("t1", "t2"))[0].isnan().any()


class Learned(EarlyFusion):
    """Learns one number for every missing modality."""

    def __init__(self) -> None:
        super().__init__(NAMES, nn.Identity())
        self.fill = nn.ParameterDict({name: torch.full((), 0.5 + index) for index, name in enumerate(NAMES)})

    def substitute(self, modality: str, present: Tensor) -> Tensor:
        return self.fill[modality].expand_as(present)


def test_a_subclass_may_learn_the_substitute():
    joined = Learned().decode({"t2": volumes()["t2"]})
    assert [joined[:, channel].unique().tolist() for channel in (0, 2)] == [[0.5], [2.5]]


def test_all_parameters_are_shared():
    network = EarlyFusion(NAMES, nn.Conv2d(3, 2, kernel_size=3))
    assert len(shared_parameters(network, NAMES)) == len(list(network.parameters())) == 2
