"""Training patches: reproducible, all modalities moved together, background at 0."""

import warnings
from dataclasses import replace

import numpy as np
import pytest
import torch
from monai.transforms import Affine, RandAffine, RandStdShiftIntensity
from torch import Tensor
from torch.testing import assert_close

from anysubset.errors import InputError
from anysubset.experiments.data_settings import AugmentSettings
from anysubset.volumes.augmentation import Augmentation, change_intensities, draw_turn
from anysubset.volumes.preprocessing import Box, Prepared
from anysubset.volumes.training_patches import TrainingPatches

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


def prepared(image: Tensor, target: Tensor) -> Prepared:
    """A patient whose foreground is the whole volume, with one region."""
    shape = tuple(image.shape[1:])
    whole = Box((0, 0, 0), shape)
    names = ("flair", "t2")[: len(image)]
    labels = target[0].to(torch.uint8)
    return Prepared(
        "a", names, image.half(), labels, whole, {"WT": (1,)}, dict.fromkeys(names, whole), shape, (1.0, 1.0, 1.0)
    )


def draw(settings: AugmentSettings, patch: tuple[int, ...], image: Tensor, target: Tensor, seed: int):
    """Image (modalities, *patch) and region (1, *patch) of one patch."""
    patient = prepared(image, target)
    dataset = TrainingPatches(lambda patient_id: patient, ["a"], patch, settings, seed)
    inputs, regions, _ = dataset[0, 0]
    return torch.cat([inputs[name] for name in patient.modalities]), regions


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
def test_an_augmentation_that_was_used_before_draws_the_same_as_a_new_one(patch, nnunet):
    settings = AugmentSettings(nnunet=nnunet)
    used = Augmentation(len(patch), settings)
    image, labels = torch.rand(2, *patch), torch.ones(*patch, dtype=torch.uint8)
    for seed in range(9):
        moved, _ = used(image.clone(), labels, np.random.default_rng(seed))
        fresh, _ = Augmentation(len(patch), settings)(image.clone(), labels, np.random.default_rng(seed))
        assert torch.equal(moved, fresh)


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
    image = torch.rand(2, 8, 8, 4).half().float()
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


# ------------------------------------------------------------------------------------- the transforms of MONAI


@pytest.mark.parametrize("shape", [(9, 12), (9, 12, 7)], ids=["2-D", "3-D"])
def test_rotation_and_zoom_are_those_of_monai(shape):
    image = torch.randn(2, *shape, generator=torch.Generator().manual_seed(0))
    labels = (image[0] > 0).to(torch.uint8)
    for seed in range(5):
        turn = draw_turn(len(shape), np.random.default_rng(seed))
        angles = turn.angle if len(shape) == 2 else (0.0, 0.0, turn.angle)
        options = {"rotate_params": angles, "scale_params": turn.scales, "padding_mode": "zeros", "image_only": True}
        expected = torch.as_tensor(Affine(mode="bilinear", **options)(image))
        assert not torch.equal(expected, image)
        assert_close(turn.linear(image), expected, rtol=0, atol=1e-5)
        nearest = torch.as_tensor(Affine(mode="nearest", **options)(labels[None].float()))[0]
        assert torch.equal(turn.nearest(labels).float(), nearest)


def test_angles_and_zooms_have_the_distribution_of_monai():
    ours = [draw_turn(3, np.random.default_rng(seed)) for seed in range(2000)]
    theirs = RandAffine(prob=1, rotate_range=[0.0, 0.0, 0.26], scale_range=[0.15] * 3).rand_affine_grid
    drawn = []
    for seed in range(2000):
        theirs.set_random_state(seed)
        theirs.randomize()
        drawn.append([theirs.rotate_params[2], *theirs.scale_params])
    # Uniform over 2 r: variance r^2 / 3. Standard errors of 2000 draws: r / 77 of a mean, r^2 / 150 of a variance.
    for numbers in (np.array([[turn.angle, *turn.scales] for turn in ours]), np.array(drawn)):
        for column, (mean, reach) in zip(numbers.T, [(0, 0.26), *[(1, 0.15)] * 3], strict=True):
            assert column.mean() == pytest.approx(mean, abs=reach / 15)
            assert column.var() == pytest.approx(reach**2 / 3, abs=reach**2 / 30)
            assert abs(column - mean).max() <= reach


def test_a_shift_is_in_standard_deviations_of_the_scaled_foreground():
    # By hand: 1, 3 have mean 2 and deviation 1; doubled 2, 6 and 2; shifted by half a deviation 3, 7.
    image = torch.tensor([[[0.0, 1.0], [3.0, 0.0]], [[0.0, 0.0], [0.0, 0.0]]])
    change_intensities(image, [2.0, 2.0], 0.5)
    assert_close(image, torch.tensor([[[0.0, 3.0], [7.0, 0.0]], [[0.0, 0.0], [0.0, 0.0]]]))


def test_a_change_of_intensity_is_that_of_monai():
    image = torch.randn(2, 9, 8, 7, generator=torch.Generator().manual_seed(0))
    image[:, :3] = 0
    theirs = RandStdShiftIntensity(factors=0.1, prob=1.0, nonzero=True, channel_wise=True)
    theirs.set_random_state(1)
    expected = torch.as_tensor(theirs(1.1 * image))
    change_intensities(image, [1.1, 1.1], theirs.factor)
    assert_close(image, expected, rtol=1e-5, atol=1e-5)
