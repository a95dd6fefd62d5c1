"""GMD: the mathematics on a Gramian, and the engine that fills `.grad`."""

from anysubset.gradients.decoupling import GMD, Decoupling, NonFiniteGradientError
from anysubset.gradients.projection import (
    RULES,
    averaged,
    by_index,
    project_conflicts,
    sequential,
    simultaneous,
    undecoupled,
)

__all__ = [
    "GMD",
    "RULES",
    "Decoupling",
    "NonFiniteGradientError",
    "averaged",
    "by_index",
    "project_conflicts",
    "sequential",
    "simultaneous",
    "undecoupled",
]
