"""Options of a method itself, as opposed to those of its network, where a file names one method and a user another."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from anysubset.experiments.files import joined_settings
from anysubset.experiments.settings import NETWORK_OPTIONS, Experiment, flatten


def is_own_option(name: str) -> bool:
    """Whether a setting is an option of the method itself, which another method may not have.

    Options of the network are not, since most methods share them.
    """
    return name.startswith("method.") and name.removeprefix("method.") not in NETWORK_OPTIONS


def options_of_other_method(paths: Sequence[Path], overrides: Mapping[str, Any]) -> dict[str, Any]:
    """Own options of the method that the files name, by dotted name, if an override names another method.

    The other method is trained with them, unless they are overridden, too; in a sweep they are dropped.
    """
    settings = flatten(joined_settings(paths))
    before = settings.get("method.name", Experiment().method["name"])
    if overrides.get("method.name", before) == before:
        return {}
    return {
        name: value
        for name, value in settings.items()
        if is_own_option(name) and name != "method.name" and name not in overrides
    }
