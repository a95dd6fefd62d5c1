"""An affine head is applied to each modality once, in training too, with the gradients of a head on every mean."""

from collections.abc import Mapping

import pytest
import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks
from torch.testing import assert_close

from anysubset.batches import Observed
from anysubset.gradients import GMD, by_index
from anysubset.models import fusion
from anysubset.models.heads import NormHead, ResidualHead
from anysubset.models.network import Encoded, select
from anysubset.models.sharing import DynamicSharing
from anysubset.models.unet import UNet
from anysubset.models.vectors import ResidualMLP
from anysubset.scenarios import Scenario, all_scenarios, scenario_name

NAMES = ("a", "b", "c")
CASES = all_scenarios(NAMES)


def on_the_mean(network: DynamicSharing, features: Mapping[str, Encoded], case: Scenario) -> Tensor:
    """Output of a case as eq. (2) is written: the head on the mean of features that have not seen the head."""
    common = sorted(set.intersection(*(set(features[name].indices.tolist()) for name in case)))
    output: Tensor = network.head(fusion.mean({name: select(features[name], torch.tensor(common)) for name in case}))
    return output


def without_head(network: DynamicSharing, inputs: Mapping[str, Observed]) -> dict[str, Encoded]:
    """Features h_m of every modality."""
    return {name: Encoded(network.backbone(x.values, name), x.indices) for name, x in inputs.items()}


class Convolution(nn.Module):
    """A backbone over volumes that takes no time."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Conv3d(1, 4, 3, padding=1)

    def forward(self, x: Tensor, modality: str) -> Tensor:
        features: Tensor = self.layer(x).tanh()
        return features


def volumes() -> tuple[DynamicSharing, dict[str, Observed]]:
    """A 1 x 1 x 1 convolution on features of volumes; sample 0 has all modalities, sample 1 lacks b."""
    torch.manual_seed(0)
    return DynamicSharing(NAMES, Convolution(), nn.Conv3d(4, 2, 1)).double(), observed((1, 5, 4, 3))


def slices() -> tuple[DynamicSharing, dict[str, Observed]]:
    """A U-Net over slices with a 1 x 1 convolution; the same samples."""
    torch.manual_seed(0)
    backbone = UNet(NAMES, dimensions=2, width=0.25)
    return DynamicSharing(NAMES, backbone, nn.Conv2d(backbone.features, 2, 1)).double(), observed((1, 16, 16))


def vectors() -> tuple[DynamicSharing, dict[str, Observed]]:
    """A residual network over vectors with a linear head; sample 0 has all modalities, sample 1 lacks b."""
    torch.manual_seed(0)
    return DynamicSharing(NAMES, ResidualMLP(NAMES, 8, 2, 0.0), nn.Linear(8, 2)).double(), observed((8,))


def observed(shape: tuple[int, ...]) -> dict[str, Observed]:
    samples = {"a": [0, 1], "b": [0], "c": [0, 1]}
    return {
        name: Observed(torch.randn(len(own), *shape, dtype=torch.float64), torch.tensor(own))
        for name, own in samples.items()
    }


def loss_of(output: Tensor, case: Scenario) -> Tensor:
    """Cases with b want the opposite of the others, so that gradients conflict."""
    return (output.tanh() - (-1) ** ("b" in case)).square().mean()


def gradients(network: DynamicSharing, losses: dict[str, Tensor], decoupled: bool) -> dict[str, Tensor]:
    network.zero_grad(set_to_none=True)
    if decoupled:
        step = GMD(network.shared_parameters(), rule=by_index).backward(losses)
        assert step.conflicting
    else:
        torch.stack(list(losses.values())).mean().backward()
    return {name: parameter.grad for name, parameter in network.named_parameters() if parameter.grad is not None}


@pytest.mark.parametrize("decoupled", [False, True], ids=["mean", "gmd"])
@pytest.mark.parametrize("made", [volumes, slices, vectors])
def test_gradients_are_those_of_the_head_on_the_mean_of_the_features(made, decoupled: bool):
    network, inputs = made()
    assert network.affine
    expected = gradients(
        network,
        {
            scenario_name(case): loss_of(on_the_mean(network, without_head(network, inputs), case), case)
            for case in CASES
        },
        decoupled,
    )
    features = network.features(inputs)
    losses = {scenario_name(case): loss_of(network.output_of_case(features, case)[0], case) for case in CASES}
    actual = gradients(network, losses, decoupled)
    assert actual.keys() == expected.keys() == dict(network.named_parameters()).keys()
    for name, gradient in expected.items():
        assert_close(actual[name], gradient, rtol=1e-9, atol=1e-12)


HEADS_ON_THE_MEAN = {
    "layer norm": NormHead(8, 2),
    "residual": ResidualHead(8, 2),
    "nonlinear": nn.Sequential(nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 2)),
    "dropout": nn.Sequential(nn.Dropout(0.5), nn.Linear(8, 2)),
    "instance norm": nn.Sequential(nn.Unflatten(1, (2, 4)), nn.InstanceNorm1d(2), nn.Flatten(), nn.Linear(8, 2)),
}


@pytest.mark.parametrize("name", HEADS_ON_THE_MEAN)
def test_every_other_head_stays_on_the_mean_of_the_features(name: str):
    head = HEADS_ON_THE_MEAN[name].double().train()
    network = DynamicSharing(NAMES, ResidualMLP(NAMES, 8, 2, 0.0), head).double()
    inputs = observed((8,))
    features = network.features(inputs)
    for modality, raw in without_head(network, inputs).items():
        assert torch.equal(features[modality].values, raw.values)
    torch.manual_seed(1)
    output, _ = network.output_of_case(features, NAMES)
    torch.manual_seed(1)  # The same units are dropped, once for the mean.
    assert torch.equal(output, on_the_mean(network, features, NAMES))


def test_cases_hold_no_features_for_the_backward_pass():
    backbone = UNet(NAMES, dimensions=2, width=0.25)
    network = DynamicSharing(NAMES, backbone, nn.Conv2d(backbone.features, 2, 1))
    x = {name: Observed(torch.randn(1, 1, 16, 16), torch.tensor([0])) for name in NAMES}
    features = network.features(x)
    saved: list[tuple[int, ...]] = []

    def note(tensor: Tensor) -> Tensor:
        saved.append(tuple(tensor.shape))
        return tensor

    with saved_tensors_hooks(note, lambda tensor: tensor):
        for case in CASES:
            network.output_of_case(features, case)[0].sigmoid().sum()
    # The sigmoid of each case holds its probabilities, of two channels; a head on eight channels would hold those.
    assert saved == [(1, 2, 16, 16)] * len(CASES)
