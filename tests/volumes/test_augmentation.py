"""Training patches: reproducible, all modalities moved together, background at 0."""

import warnings
from dataclasses import replace

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from anysubset.errors import InputError
from anysubset.experiments.data_settings import AugmentSettings
from anysubset.volumes.augmentation import patches

STILL = AugmentSettings(flip=0, affine=0, intensity=0, foreground=0)
MOVES = AugmentSettings(flip=0.5, affine=0, intensity=0, foreground=0.5)
EVERYTHING = AugmentSettings(flip=0.5, affine=1, intensity=0.1, foreground=0.5)
NNUNET = AugmentSettings(nnunet=True)
TURNED = AugmentSettings(affine=0, rotation=30, intensity=0, flip=0, foreground=1)
PATCHES = pytest.mark.parametrize("patch", [(8, 8), (8, 8, 4)], ids=["2-D", "3-D"])


def blob(shape: tuple[int, int, int] = (14, 12, 10)) -> Tensor:
    """An asymmetric region that differs from all its mirror images: (1, x, y, z) bool."""
    x, y, z = torch.meshgrid(*[torch.arange(float(length)) for length in shape], indexing="ij")
    return ((x - 5) ** 2 + 1.5 * (y - 4) ** 2 + 2 * (z - 5) ** 2 + x * y / 3 < 20)[None]


def draw(settings: AugmentSettings, patch: tuple[int, ...], image: Tensor, target: Tensor, seed: int):
    """Image and target of one patch, as plain tensors."""
    centred = settings.foreground > 0
    transform = patches(patch, settings, centred)
    transform.set_random_state(seed)
    centres = {"centres": target.any(dim=0, keepdim=True).to(torch.uint8)} if centred else {}
    patch_of = transform({"image": image, "target": target.to(torch.uint8), **centres})
    first = patch_of[0] if isinstance(patch_of, list) else patch_of
    return first["image"].as_tensor(), first["target"].as_tensor()


@pytest.mark.parametrize("settings", [EVERYTHING, NNUNET, TURNED], ids=["default", "nnU-Net", "rotation"])
@PATCHES
def test_a_seed_decides_everything(patch, settings):
    image = torch.rand(2, 14, 12, 10, generator=torch.Generator().manual_seed(0))
    first = draw(settings, patch, image, blob(), seed=3)
    torch.rand(5)  # The global generators have no influence.
    again = draw(settings, patch, image, blob(), seed=3)
    other = draw(settings, patch, image, blob(), seed=4)
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    assert not torch.equal(first[0], other[0])
    assert first[0].shape == (2, *patch)
    assert first[1].shape == (1, *patch)


@pytest.mark.parametrize("nnunet", [False, True])
@PATCHES
def test_a_transform_that_was_used_before_draws_the_same_as_a_new_one(patch, nnunet):
    sample = {"image": torch.rand(2, 14, 12, 10), "target": blob().to(torch.uint8)}
    settings = AugmentSettings(foreground=0, nnunet=nnunet)
    used = patches(patch, settings, centred=False)
    for seed in range(9):
        used.set_random_state(seed)
        image = used(sample)["image"]
        fresh = patches(patch, settings, centred=False)
        fresh.set_random_state(seed)
        assert torch.equal(image, fresh(sample)["image"])


@PATCHES
def test_modalities_and_target_are_cropped_and_flipped_together(patch):
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
def test_modalities_and_target_are_rotated_and_zoomed_together(patch):
    target = blob()
    settings = AugmentSettings(flip=0, affine=1, intensity=0, foreground=1)
    still = AugmentSettings(flip=0, affine=0, intensity=0, foreground=1)
    turned = 0
    for seed in range(12):
        moved, regions = draw(settings, patch, torch.cat([target, target]).float(), target, seed)
        assert torch.equal(moved[0], moved[1])
        assert set(regions.unique().tolist()) <= {0, 1}
        # Interpolated and thresholded at 1/2, the image equals the region except for voxels on its border.
        same = ((moved[0] > 0.5) == (regions[0] > 0)).float().mean()
        assert same > 0.95
        turned += not torch.equal(regions, draw(still, patch, target.float(), target, seed)[1])
    assert turned > 6


def test_slices_turn_in_their_plane_and_volumes_about_all_axes():
    # A column along the last axis: rotation in the plane leaves it along that axis.
    column = torch.zeros(1, 9, 9, 9, dtype=torch.bool)
    column[0, 4, 4] = True
    settings = replace(TURNED, rotation=180, foreground=0)
    tilted = 0
    for seed in range(4):
        turned, _ = draw(settings, (9, 9, 9), column.float(), column, seed)
        tilted += not torch.equal(turned[0, :, :, 0] > 0.5, turned[0, :, :, 4] > 0.5)
        in_plane, _ = draw(settings, (9, 9), column.float(), column, seed)
        assert (in_plane[0] > 0.5).nonzero().tolist() == [[4, 4]]
    assert tilted == 4


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"rotation": 181}, "data.augment.rotation is an angle from 0 to 180 degrees, not 181"),
        ({"nnunet": True, "rotation": 10}, "data.augment.nnunet replaces data.augment.rotation: leave out one of them"),
        ({"nnunet": True, "affine": 0.5}, "data.augment.nnunet replaces data.augment.affine"),
        ({"flip": 1.5}, "data.augment.flip is a share from 0 to 1, not 1.5"),
    ],
)
def test_settings_out_of_range_or_without_a_meaning_are_refused(settings, message):
    with pytest.raises(InputError, match=message):
        AugmentSettings(**settings)


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
        # The patch is larger in the plane: 5 x 4 voxels of a slice are the image, the others are 0.
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
def test_intensities_change_within_their_limits_and_independently_by_modality(patch):
    settings = AugmentSettings(flip=0, affine=0, intensity=0.2, foreground=0)
    image = torch.full((2, 14, 12, 10), 2.0)
    factors = []
    for seed in range(20):
        moved, _ = draw(settings, patch, image, blob(), seed)
        # Both modalities are 2 everywhere: with standard deviation 0 there is no shift, only the scale.
        values = moved.flatten(1)
        assert_close(values, values[:, :1].expand_as(values))
        factors.append(values[:, 0] / 2)
    scales = torch.stack(factors)
    assert ((scales >= 0.8) & (scales <= 1.2)).all()
    assert scales.min() < 0.9
    assert scales.max() > 1.1
    assert (scales[:, 0] != scales[:, 1]).all()


@PATCHES
def test_the_set_share_of_patches_is_centred_on_a_region(patch):
    # One voxel in 1680: a patch at a random position seldom has it.
    target = torch.zeros(1, 14, 12, 10, dtype=torch.bool)
    target[0, 10, 9, 8] = True
    hits = {}
    for share in (0.0, 0.5, 1.0):
        settings = AugmentSettings(flip=0.5, affine=0, intensity=0, foreground=share)
        hits[share] = sum(int(draw(settings, patch, target.float(), target, seed)[1].any()) for seed in range(40))
    assert hits[1.0] == 40
    assert 12 <= hits[0.5] < 40
    assert hits[0.0] < hits[0.5]


def test_without_augmentation_a_patch_as_large_as_the_volume_is_unchanged():
    image = torch.rand(2, 8, 8, 4)
    moved, regions = draw(STILL, (8, 8, 4), image, blob((8, 8, 4)), seed=5)
    assert torch.equal(moved, image)
    assert torch.equal(regions > 0, blob((8, 8, 4)))


@PATCHES
def test_a_patient_that_is_all_region_gives_no_warning(patch):
    # `Volumes` draws patches of such a patient at random positions.
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        _, regions = draw(STILL, patch, torch.rand(1, 14, 12, 10), torch.ones(1, 14, 12, 10, dtype=torch.bool), 0)
    assert regions.all()
