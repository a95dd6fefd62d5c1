import warnings

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from anysubset.experiments.settings import AugmentSettings
from anysubset.volumes.augmentation import patches

STILL = AugmentSettings(flip=0, affine=0, intensity=0, foreground=0)
MOVES = AugmentSettings(flip=0.5, affine=0, intensity=0, foreground=0.5)
EVERYTHING = AugmentSettings(flip=0.5, affine=1, intensity=0.1, foreground=0.5)
PATCHES = pytest.mark.parametrize("patch", [(8, 8), (8, 8, 4)], ids=["2-D", "3-D"])


def blob(shape: tuple[int, int, int] = (14, 12, 10)) -> Tensor:
    """(1, x, y, z): a lopsided region, different from all its mirror images."""
    x, y, z = torch.meshgrid(*[torch.arange(float(length)) for length in shape], indexing="ij")
    return ((x - 5) ** 2 + 1.5 * (y - 4) ** 2 + 2 * (z - 5) ** 2 + x * y / 3 < 20)[None]


def draw(settings: AugmentSettings, patch: tuple[int, ...], image: Tensor, target: Tensor, seed: int):
    """What the transforms make of a patient, as plain tensors."""
    centred = settings.foreground > 0
    transform = patches(patch, settings, centred)
    transform.set_random_state(seed)
    centres = {"centres": target.any(dim=0, keepdim=True).to(torch.uint8)} if centred else {}
    made = transform({"image": image, "target": target.to(torch.uint8), **centres})
    made = made[0] if isinstance(made, list) else made
    return made["image"].as_tensor(), made["target"].as_tensor()


@PATCHES
def test_a_seed_decides_everything(patch):
    image = torch.rand(2, 14, 12, 10, generator=torch.Generator().manual_seed(0))
    first = draw(EVERYTHING, patch, image, blob(), seed=3)
    torch.rand(5)  # The global generators have no say.
    again = draw(EVERYTHING, patch, image, blob(), seed=3)
    other = draw(EVERYTHING, patch, image, blob(), seed=4)
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    assert not torch.equal(first[0], other[0])
    assert first[0].shape == (2, *patch)
    assert first[1].shape == (1, *patch)


@PATCHES
def test_a_transform_used_before_draws_as_a_fresh_one_does(patch):
    sample = {"image": torch.rand(2, 14, 12, 10), "target": blob().to(torch.uint8)}
    settings = AugmentSettings(foreground=0)
    used = patches(patch, settings, centred=False)
    for seed in (9, 3):
        used.set_random_state(seed)
        made = used(sample)["image"]
    fresh = patches(patch, settings, centred=False)
    fresh.set_random_state(3)
    assert torch.equal(made, fresh(sample)["image"])


@PATCHES
def test_contrasts_and_target_are_cropped_and_flipped_together(patch):
    target = blob()
    image = torch.cat([target, 2 * target]).float()
    different = set()
    for seed in range(12):
        moved, regions = draw(MOVES, patch, image, target, seed)
        assert torch.equal(moved[0], regions[0].float())
        assert torch.equal(moved[1], 2 * moved[0])
        different.add(tuple(moved.flatten().tolist()))
    assert len(different) > 6


@PATCHES
def test_contrasts_and_target_are_turned_and_zoomed_together(patch):
    target = blob()
    settings = AugmentSettings(flip=0, affine=1, intensity=0, foreground=1)
    still = AugmentSettings(flip=0, affine=0, intensity=0, foreground=1)
    turned = 0
    for seed in range(12):
        moved, regions = draw(settings, patch, torch.cat([target, target]).float(), target, seed)
        assert torch.equal(moved[0], moved[1])
        assert set(regions.unique().tolist()) <= {0, 1}
        # Interpolated and cut at one half, the contrast is the region, but for voxels on the very edge.
        same = ((moved[0] > 0.5) == (regions[0] > 0)).float().mean()
        assert same > 0.95
        turned += not torch.equal(regions, draw(still, patch, target.float(), target, seed)[1])
    assert turned > 6


@PATCHES
def test_a_volume_smaller_than_the_patch_is_padded_with_background(patch):
    target = torch.zeros(1, 5, 4, 3, dtype=torch.bool)
    target[0, 1:4, 2, :] = True
    image = 1 + torch.rand(2, 5, 4, 3)
    seen = 0
    for seed in range(6):
        moved, regions = draw(MOVES, patch, image, target, seed)
        assert moved.shape == (2, *patch)
        assert regions.shape == (1, *patch)
        depth = 1 if len(patch) == 2 else 3
        # In the plane everything fits: 5 x 4 voxels a slice, the rest is 0.
        assert (moved != 0).sum() == 2 * 5 * 4 * depth
        seen += int(regions.sum())
    assert seen > 0


@PATCHES
def test_a_change_of_intensity_leaves_the_background_at_zero(patch):
    settings = AugmentSettings(flip=0, affine=0, intensity=0.2, foreground=0)
    image = torch.randn(2, 14, 12, 10, generator=torch.Generator().manual_seed(0))
    image[:, blob()[0]] = 0
    still, _ = draw(STILL, patch, image, blob(), seed=1)
    moved, regions = draw(settings, patch, image, blob(), seed=1)
    assert (regions > 0).any()
    assert (moved[:, regions[0] > 0] == 0).all()
    inside = moved[:, regions[0] == 0]
    assert (inside != still[:, regions[0] == 0]).all()


@PATCHES
def test_intensities_change_within_their_limits_and_each_contrast_by_itself(patch):
    settings = AugmentSettings(flip=0, affine=0, intensity=0.2, foreground=0)
    image = torch.full((2, 14, 12, 10), 2.0)
    factors = []
    for seed in range(20):
        moved, _ = draw(settings, patch, image, blob(), seed)
        # Both contrasts are 2 everywhere: their standard deviation is 0, so that there is no shift, only the scale.
        values = moved.flatten(1)
        assert_close(values, values[:, :1].expand_as(values))
        factors.append(values[:, 0] / 2)
    found = torch.stack(factors)
    assert ((found >= 0.8) & (found <= 1.2)).all()
    assert found.min() < 0.9
    assert found.max() > 1.1
    assert (found[:, 0] != found[:, 1]).all()


@PATCHES
def test_the_share_of_patches_on_a_region_is_kept(patch):
    # One voxel in 1680: a patch drawn anywhere seldom has it.
    target = torch.zeros(1, 14, 12, 10, dtype=torch.bool)
    target[0, 10, 9, 8] = True
    found = {}
    for share in (0.0, 0.5, 1.0):
        settings = AugmentSettings(flip=0.5, affine=0, intensity=0, foreground=share)
        found[share] = sum(int(draw(settings, patch, target.float(), target, seed)[1].any()) for seed in range(40))
    assert found[1.0] == 40
    assert 12 <= found[0.5] < 40
    assert found[0.0] < found[0.5]


def test_nothing_is_changed_when_nothing_is_asked_for():
    image = torch.rand(2, 8, 8, 4)
    moved, regions = draw(STILL, (8, 8, 4), image, blob((8, 8, 4)), seed=5)
    assert torch.equal(moved, image)
    assert torch.equal(regions > 0, blob((8, 8, 4)))


@PATCHES
def test_no_warning_is_given_for_a_patient_that_is_all_region(patch):
    # What `Volumes` does with one: it draws anywhere.
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        _, regions = draw(STILL, patch, torch.rand(1, 14, 12, 10), torch.ones(1, 14, 12, 10, dtype=torch.bool), 0)
    assert regions.all()
