"""One multimodal model for any subset of its modalities."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from anysubset.api import evaluate, export, fit, inspect, load, predict, write_report
    from anysubset.batches import Batch, Observed, collate
    from anysubset.estimators import AnySubsetClassifier, AnySubsetRegressor
    from anysubset.gradients import GMD, Decoupling
    from anysubset.models.sharing import DynamicSharing
    from anysubset.models.unet import UNet
    from anysubset.scenarios import all_scenarios, scenario_name

# Where each name lives: it is imported when it is first asked for, so that `import anysubset` costs nothing.
_HOMES = {
    "evaluate": "anysubset.api",
    "export": "anysubset.api",
    "fit": "anysubset.api",
    "inspect": "anysubset.api",
    "load": "anysubset.api",
    "predict": "anysubset.api",
    "write_report": "anysubset.api",
    "AnySubsetClassifier": "anysubset.estimators",
    "AnySubsetRegressor": "anysubset.estimators",
    "GMD": "anysubset.gradients",
    "Decoupling": "anysubset.gradients",
    "Batch": "anysubset.batches",
    "Observed": "anysubset.batches",
    "collate": "anysubset.batches",
    "scenario_name": "anysubset.scenarios",
    "all_scenarios": "anysubset.scenarios",
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
    "all_scenarios",
    "collate",
    "evaluate",
    "export",
    "fit",
    "inspect",
    "load",
    "predict",
    "scenario_name",
    "write_report",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'anysubset' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)
