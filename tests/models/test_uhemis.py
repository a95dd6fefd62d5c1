"""U-HeMIS: number of parameters, sizes that it takes, fusion at every level, and loss."""

import pytest
import torch
from torch import nn
from torch.testing import assert_close

from anysubset.errors import InputError
from anysubset.models import fusion
from anysubset.models.network import shared_parameters
from anysubset.models.uhemis import HeteroModalNetwork, NormConv, channels_of, check_size, segmentation_loss

BRATS = ("flair", "t1ce", "t1", "t2")
NAMES = ("t1", "t2")


def count(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def small(dimensions: int = 2) -> HeteroModalNetwork:
    torch.manual_seed(0)
    return HeteroModalNetwork(NAMES, dimensions, classes=3, width=0.25)


def test_the_network_has_the_published_number_of_parameters():
    # H4: 566,728, of which 1,648 are the affine pairs of the norms.
    with torch.device("meta"):
        network = HeteroModalNetwork(BRATS, dimensions=3, classes=4)
    assert count(network) == 566_728
    norms = [module.norm for module in network.modules() if isinstance(module, NormConv)]
    assert len(norms) == 4 * 8 + 6
    assert count(network) - sum(map(count, norms)) == 565_080
    shared = shared_parameters(network, BRATS)
    assert {id(parameter) for parameter in shared} == {id(parameter) for parameter in network.decoder.parameters()}


@pytest.mark.parametrize(
    ("size", "coarsest"), [((16, 24), (2, 3)), ((9, 1), (2, 1)), ((16, 8, 16), (2, 1, 2)), ((13, 5, 2), (2, 1, 1))]
)
@torch.no_grad()
def test_each_level_halves_the_one_before_rounding_up_and_the_logits_have_the_size_of_the_patch(
    size: tuple[int, ...], coarsest: tuple[int, ...]
):
    network = small(len(size))
    levels = {name: network.encode(name, torch.randn(2, 1, *size)) for name in NAMES}
    # Half of the channels of each level go on: 2, 4, 8 and 16 at this width.
    assert [level.shape[1] for level in levels["t1"]] == [1, 2, 4, 8]
    assert tuple(levels["t1"][-1].shape[2:]) == coarsest
    assert network.decode(levels).shape == (2, 3, *size)


@torch.no_grad()
def test_the_decoder_gets_the_moments_of_the_present_modalities_at_every_level():
    network = small()
    levels = {name: network.encode(name, torch.randn(1, 1, 16, 16)) for name in NAMES}
    moments = [fusion.mean_and_variance({name: levels[name][depth] for name in NAMES}) for depth in range(4)]
    assert [fused.shape[1] for fused in moments] == [2, 4, 8, 16]
    assert torch.equal(network.decode(levels), network.decoder(moments))
    # One modality alone: its features, and variance 0.
    alone = [torch.cat([level, torch.zeros_like(level)], dim=1) for level in levels["t2"]]
    assert torch.equal(network.decode({"t2": levels["t2"]}), network.decoder(alone))


def test_a_patch_with_one_voxel_at_the_deepest_level_and_other_widths_are_refused(fault):
    assert fault(check_size, (8, 8, 4)) == (
        "A network of 4 levels takes patches with more than 8 voxels along at least one axis, not 8 x 8 x 4: enlarge "
        "task.patch."
    )
    assert fault(small().encode, "t1", torch.zeros(1, 1, 8, 2)).endswith("not 8 x 2: enlarge task.patch.")
    assert channels_of(2) == (16, 32, 64, 128)
    with pytest.raises(InputError, match=r"positive multiple of 0\.25 of at most 128, not 0\.3"):
        channels_of(0.3)


def test_the_loss_by_hand():
    # Two voxels of the classes 0 and 1, with the probabilities (1/2, 1/2) and (1/4, 3/4).
    logits = torch.tensor([[0.5, 0.5], [0.25, 0.75]]).log().T[None]
    entropy = -(torch.tensor(0.5).log() + torch.tensor(0.75).log()) / 2
    # Dice: class 0, 1 - (2 x 1/2 + 1) / (3/4 + 1 + 1); class 1, 1 - (2 x 3/4 + 1) / (5/4 + 1 + 1).
    dice = (1 - 2 / 2.75 + 1 - 2.5 / 3.25) / 2
    assert_close(segmentation_loss(logits, torch.tensor([[0, 1]])), entropy + dice)
