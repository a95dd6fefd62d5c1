"""The loss of the maps of coarse levels on numbers worked out by hand."""

import torch
from torch.testing import assert_close

from anysubset.models.class_decoder import map_loss
from anysubset.tasks.losses import class_loss


def test_maps_are_interpolated_as_probabilities_and_not_as_logits():
    # Along one axis, from p = (.9, .1) and (.1, .9): the two voxels between have .9 - .8/3 and .1 + .8/3.
    logits = torch.tensor([[0.9, 0.1], [0.1, 0.9]], dtype=torch.float64).log().T[None, :, None]
    target = torch.tensor([[[0, 1, 1, 1]]])
    first = torch.tensor([0.9, 0.9 - 0.8 / 3, 0.1 + 0.8 / 3, 0.1], dtype=torch.float64)
    expected = class_loss(torch.stack([first, 1 - first])[None, :, None], target)
    assert_close(map_loss(logits, target), expected)
