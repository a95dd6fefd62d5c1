"""Weights of the parts of a blend that are chosen on validation when the training ends (`weights: validated`)."""

from collections.abc import Callable

from anysubset.datasets.dataset import Dataset
from anysubset.evaluation.blend_weights import validated_weights
from anysubset.methods.blend import Blend
from anysubset.methods.method import Method


def choose_weights(method: Method, dataset: Dataset, seed: int, report: Callable[[str], None]) -> None:
    """Choose the weights of the parts of a blend; does nothing for another method, or a blend with equal weights.

    Args:
        method: with its parts trained.
        dataset: with the split `val`.
        seed: decides which voxels of volumes are used.
        report: called with one line about the weights.
    """
    if not isinstance(method, Blend) or method.weights is None:
        return
    method.weights.copy_(validated_weights(method, dataset, "val", seed))
    chosen = ", ".join(f"{label} {weight:.3g}" for label, weight in method.weight_of.items())
    report(f"weights of the parts, chosen on validation: {chosen}")
