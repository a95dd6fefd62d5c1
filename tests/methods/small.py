"""Options that keep the methods small on the toy tasks."""

from collections.abc import Mapping
from typing import Any

DONORS = {"text": ["audio", "vision"], "audio": ["vision", "text"], "vision": ["text", "audio"]}

SMALL: Mapping[str, Mapping[str, Any]] = {
    "nnunet": {"levels": 3, "width": 0.125},
    "uhemis": {"width": 0.25},
    "uhved": {"width": 0.25},
    "rfnet": {"width": 0.25},
    "mmformer": {"levels": 3, "width": 0.125},
    "demoseg": {"levels": 3, "width": 0.25, "donors": DONORS},
    "ogm_ge": {"alpha": 0.5},
    "shaspec": {"depth": 14, "levels": 2, "width": 0.125},
    "mult": {"layers": 1},
    "gmc": {"steps": 6},
    "mmin": {"width": 8},
    "gcnet": {"width": 4},
    "cpm": {"latent": 8, "hidden": 6, "fit_steps": 4},
    "boosting": {"iterations": 4, "leaves": 4},
    "acn": {"width": 0.5},
    "smunet": {"width": 0.5},
    "m3ae": {"width": 0.5},
}
