"""The augmentation of nnU-Net: published probabilities and ranges, and random numbers of each modality."""

import numpy as np
import pytest
import torch
from monai.transforms import RandAdjustContrast, RandScaleIntensity

from anysubset.volumes.nnunet_augmentation import EachModality, nnunet_augmentation


def image(modalities: int = 3) -> torch.Tensor:
    return torch.rand(modalities, 6, 5, 4, generator=torch.Generator().manual_seed(0)) + 1


def apply(transform: EachModality, seed: int, modalities: int = 3) -> torch.Tensor:
    transform.set_random_state(seed)
    return transform({"image": image(modalities)})["image"]


def test_every_modality_has_random_numbers_of_its_own():
    ratios = apply(EachModality(RandScaleIntensity((-0.3, 0.3), prob=1.0)), 0) / image()
    factors = ratios.flatten(1)[:, 0]
    torch.testing.assert_close(ratios, factors.view(3, 1, 1, 1).expand_as(ratios))
    assert len(set(factors.tolist())) == 3
    assert ((factors >= 0.7) & (factors <= 1.3)).all()


def test_a_seed_decides_the_decision_and_the_numbers_whatever_was_drawn_before():
    transform = EachModality(RandScaleIntensity(0.3, prob=0.5), prob=0.5)
    first = [apply(transform, seed) for seed in range(20)]
    np.random.seed(5)  # noqa: NPY002 (what it must not depend on)
    assert all(torch.equal(apply(transform, seed), first[seed]) for seed in reversed(range(20)))
    unchanged = sum(torch.equal(values, image()) for values in first)
    assert 4 < unchanged < 20


def test_a_sample_is_transformed_as_often_as_its_probability_says_and_a_modality_as_the_product():
    transform = EachModality(RandScaleIntensity((0.5, 0.6), prob=0.5), prob=0.2)
    changed = torch.tensor(
        [(apply(transform, seed, 2) != image(2)).flatten(1).any(dim=1).tolist() for seed in range(900)]
    )
    # By hand: .2 * .5 = .1 of each modality, .2 * .75 = .15 of the samples; four standard errors are .04 and .048.
    assert changed.float().mean(dim=0).tolist() == pytest.approx([0.1, 0.1], abs=0.04)
    assert changed.any(dim=1).float().mean().item() == pytest.approx(0.15, abs=0.048)


@pytest.mark.parametrize("dimensions", [2, 3])
def test_probabilities_are_the_published_ones_in_the_published_order(dimensions):
    # Rotation, scaling, noise, blur, brightness, contrast, low resolution, gamma of inverted values, gamma.
    transforms = nnunet_augmentation(dimensions)
    of_modality = [transform.transform.prob if isinstance(transform, EachModality) else 1 for transform in transforms]
    in_all = [transform.prob * share for transform, share in zip(transforms, of_modality, strict=True)]
    assert in_all == pytest.approx([0.2, 0.2, 0.15, 0.1, 0.15, 0.15, 0.125, 0.15, 0.15])


def test_gamma_keeps_the_range_of_each_modality():
    values = torch.cat([image(1), 100 * image(1)])
    transform = EachModality(RandAdjustContrast(gamma=(0.7, 1.5), prob=1.0))
    transform.set_random_state(1)
    changed = transform({"image": values})["image"]
    assert not torch.allclose(changed, values)
    torch.testing.assert_close(changed.flatten(1).aminmax(dim=1), values.flatten(1).aminmax(dim=1))


def test_every_transform_changes_a_patch():
    item = {"image": image(), "target": (image() > 1.5).to(torch.uint8)}
    assert len(nnunet_augmentation(3)) == 9
    for transform in nnunet_augmentation(3):
        changed = 0
        for seed in range(60):
            transform.set_random_state(seed)
            changed += not torch.equal(torch.as_tensor(transform(dict(item))["image"]), item["image"])
        assert 0 < changed < 60
