"""Sums of decision trees, as gradient boosting fits them, as tensors of a fixed shape."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

AT_ONCE = 1024  # Samples that descend all trees at once; it bounds memory.


@dataclass(frozen=True)
class Tree:
    """A decision tree; the first of its n nodes is the root.

    feature: (n,) int64, the feature that a node compares; unused in a leaf.
    threshold: (n,) float64. A sample goes to the left child if its feature is at most this; unused in a leaf.
    left, right: (n,) int64, the numbers of the children; that of the leaf itself in a leaf.
    value: (n,) float64, what a leaf adds to the output.
    """

    feature: Tensor
    threshold: Tensor
    left: Tensor
    right: Tensor
    value: Tensor


class Trees(nn.Module):
    """Outputs that are each a constant plus a sum of trees. Before `assign` all outputs are 0.

    Parameters require no gradient. They have room for a fixed number of trees and nodes, so that their shapes are
    known before trees are fitted.

    Args:
        outputs: number of outputs.
        trees: largest number of trees of an output.
        leaves: largest number of leaves of a tree, which then has 2 x leaves - 1 nodes.
    """

    feature: Tensor
    left: Tensor
    right: Tensor

    def __init__(self, outputs: int, trees: int, leaves: int) -> None:
        super().__init__()
        shape = (outputs, trees, 2 * leaves - 1)
        self.constant = nn.Parameter(torch.zeros(outputs), requires_grad=False)
        self.threshold = nn.Parameter(torch.zeros(shape), requires_grad=False)
        self.value = nn.Parameter(torch.zeros(shape), requires_grad=False)
        for name in ("feature", "left", "right"):
            self.register_buffer(name, torch.zeros(shape, dtype=torch.int32))

    def assign(self, constants: Sequence[float], trees: Sequence[Sequence[Tree]]) -> None:
        """Replace all trees.

        Args:
            constants: by output.
            trees: by output, up to as many as there is room for.
        """
        for tensor in (self.constant, self.threshold, self.value, self.feature, self.left, self.right):
            tensor.zero_()  # A tree of zeros is a leaf of value 0.
        self.constant.copy_(torch.tensor(constants))
        for output, of_output in enumerate(trees):
            for number, tree in enumerate(of_output):
                where = (output, number, slice(len(tree.value)))
                self.feature[where] = tree.feature.to(self.feature)
                self.left[where] = tree.left.to(self.left)
                self.right[where] = tree.right.to(self.right)
                self.value[where] = tree.value.to(self.value)
                self.threshold[where] = rounded_down(tree.threshold, self.threshold.dtype).to(self.threshold)

    def forward(self, x: Tensor) -> Tensor:
        """(n, outputs), in the precision of the parameters, of samples (n, features)."""
        return torch.cat([self.of_few(part) for part in x.split(AT_ONCE)])

    def of_few(self, x: Tensor) -> Tensor:
        """`forward` without a bound on memory: (n, features) -> (n, outputs)."""
        outputs, trees, nodes = self.value.shape
        # Tables of all nodes of all trees; `first` is the row of the root of each tree.
        feature, threshold, value = self.feature.flatten().long(), self.threshold.flatten(), self.value.flatten()
        first = torch.arange(0, outputs * trees * nodes, nodes, device=x.device)
        left = (self.left.flatten(0, 1) + first[:, None]).flatten().long()
        right = (self.right.flatten(0, 1) + first[:, None]).flatten().long()
        node = first.expand(len(x), -1)
        while True:
            below = x.gather(1, feature[node]) <= threshold[node]
            following = torch.where(below, left[node], right[node])
            if torch.equal(following, node):  # Every sample is in a leaf of every tree.
                break
            node = following
        sums = value[node].view(len(x), outputs, trees).sum(dim=2, dtype=torch.float64)
        return (self.constant + sums).to(self.value)


def rounded_down(numbers: Tensor, dtype: torch.dtype) -> Tensor:
    """Numbers in another precision, none of them above its original.

    So `x <= threshold` stays the same for every x of this precision.
    """
    rounded = numbers.to(dtype)
    lower = torch.nextafter(rounded, torch.full_like(rounded, -torch.inf))
    return torch.where(rounded.to(numbers) > numbers, lower, rounded)
