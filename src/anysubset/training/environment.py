"""The software and hardware of a run, for its record."""

import platform
import sys
from importlib import metadata
from typing import Any

import torch

import anysubset


def environment() -> dict[str, Any]:
    """Versions, devices and command line, on which the results of a run can depend besides its experiment."""
    packages = ("torch", "monai", "numpy", "nibabel", "safetensors")
    return {
        "anysubset": anysubset.__version__,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "command": sys.argv,
        "threads": torch.get_num_threads(),
        "cuda": torch.version.cuda if torch.cuda.is_available() else None,
        "devices": [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())],
        "packages": {name: metadata.version(name) for name in packages},
    }
