"""GMD: the mathematics on a Gramian, and the engine that fills `.grad`."""

from anysubset.gradients.decoupling import GMD, Decoupling, NonFiniteGradientError
from anysubset.gradients.jacobian import Stored
from anysubset.gradients.projection import (
    RULES,
    averaged,
    by_index,
    project_conflicts,
    sequential,
    simultaneous,
    undecoupled,
)
from anysubset.gradients.streaming import Streamed

__all__ = [
    "GMD",
    "RULES",
    "Decoupling",
    "NonFiniteGradientError",
    "Stored",
    "Streamed",
    "averaged",
    "by_index",
    "project_conflicts",
    "sequential",
    "simultaneous",
    "undecoupled",
]
