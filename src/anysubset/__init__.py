"""One multimodal model for any subset of its modalities."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from anysubset.estimators import AnySubsetClassifier, AnySubsetRegressor
    from anysubset.gradients import GMD, Decoupling
    from anysubset.modalities import Batch, Observed, collate, scenario_name, scenarios
    from anysubset.models.sharing import DynamicSharing
    from anysubset.models.unet import UNet

# Where each name lives: it is imported when it is first asked for, so that `import anysubset` costs nothing.
_HOMES = {
    "AnySubsetClassifier": "anysubset.estimators",
    "AnySubsetRegressor": "anysubset.estimators",
    "GMD": "anysubset.gradients",
    "Decoupling": "anysubset.gradients",
    "Batch": "anysubset.modalities",
    "Observed": "anysubset.modalities",
    "collate": "anysubset.modalities",
    "scenario_name": "anysubset.modalities",
    "scenarios": "anysubset.modalities",
    "DynamicSharing": "anysubset.models.sharing",
    "UNet": "anysubset.models.unet",
}

__all__ = [
    "GMD",
    "AnySubsetClassifier",
    "AnySubsetRegressor",
    "Batch",
    "Decoupling",
    "DynamicSharing",
    "Observed",
    "UNet",
    "collate",
    "scenario_name",
    "scenarios",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'anysubset' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)
