"""M3AE's network and equations on numbers worked out by hand: parameters, fill, hidden patches and losses."""

import math

import pytest
import torch
from torch import Tensor, nn
from torch.testing import assert_close

from anysubset.batches import Observed
from anysubset.errors import InputError
from anysubset.models.m3ae import (
    FilledNetwork,
    SupervisedUNet,
    difference,
    draw_visible,
    fill_penalty,
    reconstruction_loss,
    segmentation_loss,
    supervised_loss,
)

NAMES = ("t1", "t2", "flair")


def count(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


class Joined(FilledNetwork):
    """The network without its U-Net: the output is its input, all channels joined."""

    def __init__(self, size: tuple[int, ...] = (8, 8), image: bool = False) -> None:
        super().__init__(NAMES, 2, size, width=0.5, image=image)
        self.body = nn.Identity()
        values = torch.tensor([0.5, 1.5, 2.5]).view(-1, *[1] * len(size))
        self.fill = nn.Parameter(values + torch.zeros_like(self.fill))


# ------------------------------------------------------------------------------------------------ the network


def test_number_of_parameters_as_published():
    # Y4. The residual U-Net with three outputs has 17 fewer than with four: 4,704,228 - 17. Two heads: 3 (64 + 32 + 2).
    with torch.device("meta"):
        assert count(SupervisedUNet(4, 3, dimensions=3)) == 4_704_228 - 17 + 3 * (64 + 32 + 2) == 4_704_505
        assert FilledNetwork("abcd", 3, (128, 128, 128)).fill.numel() == 4
        assert FilledNetwork("abcd", 3, (240, 240, 155), image=True).fill.numel() == 35_712_000


@pytest.mark.parametrize("size", [(16, 24), (8, 16, 8)])
@torch.no_grad()
def test_every_level_of_the_decoder_gives_logits_of_half_the_size_of_the_one_before(size: tuple[int, ...]):
    output = SupervisedUNet(2, 3, len(size), width=0.5)(torch.randn(1, 2, *size))
    shapes = [(1, 3, *(length // factor for length in size)) for factor in (1, 2, 4)]
    assert [tuple(logits.shape) for logits in output.logits] == shapes
    assert output.bottleneck.shape == (1, 64, *(length // 8 for length in size))
    assert output.finest.shape == (1, 8, *size)


@pytest.mark.parametrize("image", [False, True])
def test_a_missing_modality_has_its_fill(image: bool):
    joined = Joined(image=image).decode({"t2": torch.zeros(2, 1, 8, 8)})
    assert [joined[:, channel].unique().tolist() for channel in range(3)] == [[0.5], [0.0], [2.5]]


def test_a_hidden_patch_has_the_fill_of_its_modality():
    visible = torch.ones(1, 8, 8, dtype=torch.bool)
    visible[0, 7, 0] = False  # Of 2 x 3 voxels, an eighth of 16 x 24.
    hidden = Joined((16, 24)).hide("t2", torch.zeros(1, 1, 16, 24), visible)
    assert hidden.sum() == 6 * 1.5
    assert hidden[0, 0, 14:, :3].unique().tolist() == [1.5]


def test_all_parameters_are_shared_also_the_fill():
    network = FilledNetwork(NAMES, 2, (8, 8), width=0.5)
    assert any(parameter is network.fill for parameter in network.shared_parameters())
    assert len(network.shared_parameters()) == len(list(network.parameters()))


def test_a_fill_image_fits_inputs_of_its_size_alone():
    with pytest.raises(InputError, match=r"image of 8 x 8 voxels .* not of 16 x 8: set method\.fill to constant"):
        Joined(image=True).decode({"t2": torch.zeros(1, 1, 16, 8)})


# --------------------------------------------------------------------------------------------- hidden patches


@pytest.mark.parametrize("remaining", [1, 2, 3, 4])
def test_an_eighth_of_all_patches_is_visible_whatever_was_dropped(remaining: int):
    # Y1: of 4 x 8^3 = 2048 patches, 256 are visible.
    visible = draw_visible(remaining, 4, 3, torch.Generator().manual_seed(0))
    assert visible.shape == (remaining, 8, 8, 8)
    assert visible.sum() == 256


def test_visible_patches_depend_on_the_generator():
    one, same, other = (draw_visible(2, 4, 2, torch.Generator().manual_seed(seed)) for seed in (0, 0, 1))
    assert torch.equal(one, same)
    assert not torch.equal(one, other)
    assert one.sum() == other.sum() == 32


def test_of_more_than_eight_modalities_a_single_one_is_visible_as_a_whole():
    assert draw_visible(1, 9, 2, torch.Generator().manual_seed(0)).all()


# ------------------------------------------------------------------------------------------------------ losses


def test_segmentation_loss_of_one_half_twice():
    # Y2: Dice 1 - (2 x 0.5 + 1) / (0.5 + 1 + 1) = 0.2; cross entropy ln 2; 0.7 x 0.2 + 0.3 ln 2 = 0.347944.
    loss = segmentation_loss(torch.zeros(1, 1, 2), torch.tensor([[[True, False]]]))
    assert_close(loss, torch.tensor(0.7 * 0.2 + 0.3 * math.log(2)))
    assert_close(loss, torch.tensor(0.347944), rtol=0, atol=1e-6)


def test_the_losses_of_all_levels_are_summed_each_with_every_second_voxel_of_the_target_of_the_finer_one():
    # Logits of -50 have no loss where they are right. Voxel (0, 0) of the target is in all levels, (0, 1) in one.
    target = torch.zeros(1, 1, 4, 4, dtype=torch.bool)
    levels = [torch.full((1, 1, size, size), -50.0) for size in (4, 2, 1)]
    assert_close(supervised_loss(levels, target), torch.tensor(0.0))
    target[0, 0, 0, 1] = True
    assert_close(supervised_loss(levels, target), segmentation_loss(levels[0], target))
    target[0, 0, 0, 0] = True
    # Of a level with n voxels and one wrong one: Dice 1 - 1/2, cross entropy 50 / n.
    coarser = sum(0.7 * 0.5 + 0.3 * 50 / voxels for voxels in (4, 1))
    assert_close(supervised_loss(levels, target), segmentation_loss(levels[0], target) + coarser)


def test_a_constant_fill_has_no_penalty():
    # Y3. The other fill differs from its means, 1 and 5, by -1, 1, 0, 0.
    assert fill_penalty(torch.tensor([[2.0, 2.0], [-1.0, -1.0]])) == 0
    assert_close(fill_penalty(torch.tensor([[0.0, 2.0], [5.0, 5.0]])), torch.tensor(math.sqrt(2)))


def test_the_penalty_of_a_fill_of_zeros_has_a_finite_gradient():
    fill = torch.zeros(2, 4, 4, requires_grad=True)
    fill_penalty(fill).backward()
    assert torch.equal(fill.grad, torch.zeros_like(fill))


def test_a_sample_is_reconstructed_where_it_has_a_modality():
    # Sample 0 has t1 and t2 with errors 1 and 9, sample 1 has t2 alone with error 4: mean of (1 + 9) / 2 and 4.
    reconstructed = torch.zeros(2, 3, 2, 2)
    reconstructed[:, 2] = torch.nan  # No sample has flair.
    reconstructed[1, 0] = torch.nan

    def observed(values: list[float], indices: list[int]) -> Observed:
        return Observed(torch.tensor(values).view(-1, 1, 1, 1).expand(-1, 1, 2, 2), torch.tensor(indices))

    inputs = {"t2": observed([3.0, -2.0], [0, 1]), "t1": observed([1.0], [0])}
    assert_close(reconstruction_loss(reconstructed, inputs, NAMES), torch.tensor(4.5))


def test_the_difference_of_two_views_is_a_mean():
    one: Tensor = torch.tensor([[1.0, 2.0]])
    assert_close(difference(one, torch.tensor([[0.0, 5.0]])), torch.tensor(5.0))
