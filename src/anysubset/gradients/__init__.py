"""GMD: the mathematics on a Gramian, and the engine that fills `.grad`."""

from anysubset.gradients.balancing import gated, norm, upgrad
from anysubset.gradients.decoupling import GMD, Decoupling, NonFiniteGradientError
from anysubset.gradients.loss_weights import LossRule, worst
from anysubset.gradients.projection import (
    averaged,
    by_index,
    normalised,
    project_conflicts,
    projected_copies,
    sequential,
    simultaneous,
    undecoupled,
)
from anysubset.gradients.rules import LOSS_RULES, RULES, copies_named, rule_named, torchjd_rule
from anysubset.gradients.stored import Stored
from anysubset.gradients.streaming import Streamed

__all__ = [
    "GMD",
    "LOSS_RULES",
    "RULES",
    "Decoupling",
    "LossRule",
    "NonFiniteGradientError",
    "Stored",
    "Streamed",
    "averaged",
    "by_index",
    "copies_named",
    "gated",
    "norm",
    "normalised",
    "project_conflicts",
    "projected_copies",
    "rule_named",
    "sequential",
    "simultaneous",
    "torchjd_rule",
    "undecoupled",
    "upgrad",
    "worst",
]
