"""YAML files of settings: reading them into an Experiment, overriding single settings, and writing an Experiment.

This module imports neither torch nor MONAI, so that errors in a file are reported without delay.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from functools import cache
from pathlib import Path
from typing import Any

import jsonargparse
import yaml

from anysubset.errors import InputError, unknown
from anysubset.experiments.data_settings import AugmentSettings, DataSettings, ReadingSettings
from anysubset.experiments.settings import OPEN, RENAMED, RENAMED_VALUES, Experiment, TaskSettings, flatten
from anysubset.experiments.train_settings import TrainSettings
from anysubset.experiments.type_faults import type_fault
from anysubset.system.yaml_file import read_yaml

IN_RECIPES = ("task.", "method.", "train.")  # Groups of settings that belong to a recipe.
NOT_IN_RECIPES = (  # Settings of these groups that do not belong to it, and may differ between runs.
    *("method.name", "train.device", "train.checkpoint_every", "train.log_every", "train.micro_batches"),
)
CHANGED = " (changed)"  # Appended to the name of a recipe if single settings of it were overridden.


def add_settings(parser: jsonargparse.ArgumentParser) -> None:
    """Add every setting of an experiment to a parser, as an option with a dotted name."""
    parser.add_class_arguments(Experiment, fail_untyped=False)


@cache
def settings_parser() -> jsonargparse.ArgumentParser:
    """The parser of the settings; cached, since creating it takes longer than parsing."""
    parser = jsonargparse.ArgumentParser(exit_on_error=False)
    add_settings(parser)
    return parser


def read_experiment(path: Path | Sequence[Path] | None, overrides: Mapping[str, Any] | None = None) -> Experiment:
    """Read an experiment from one or several YAML files; settings that they lack have their defaults.

    Args:
        path: one file, or several that are joined, such as one that describes the data and one with a recipe; None for
            the defaults.
        overrides: by dotted name, settings that replace those of the files.

    >>> read_experiment(None, {"train.steps": 5, "method.name": "full"}).train.steps
    5

    Raises:
        InputError: if a file is missing or a sweep, two files disagree, or a setting is unknown or of the wrong type.
    """
    paths = [path] if isinstance(path, Path) else list(path or [])
    settings, changes = joined_settings(paths), dict(overrides or {})
    check_current(changes)
    recipe = changed_recipe(settings.get("recipe"), flatten(settings), changes)
    for name, value in changes.items():
        override(settings, name, value)
    if "recipe" not in changes and recipe is not None:
        settings["recipe"] = recipe
    check_names(settings)
    parsed = parse_settings(settings, f"A setting in {' or '.join(map(str, paths))}" if paths else "A setting")
    for stage, values in parsed["train"]["stages"].items():
        try:
            check_names({"train": values})
        except InputError as error:
            raise InputError(f"train.stages.{stage}: {error}") from None
        typed = parse_settings({"train": values}, f"A setting of train.stages.{stage}")["train"]
        parsed["train"]["stages"][stage] = {name: typed[name] for name in values}
    return experiment_from(parsed)


def joined_settings(paths: Sequence[Path]) -> dict[str, Any]:
    """Join the nested settings of several files.

    Setting `recipe` becomes the names of the files with a group `method` or `train`, joined by ` + `, unless a file
    sets it, as the experiment.yaml of a run does.

    Raises:
        InputError: if a file is missing, faulty or a sweep, or a setting has different values in two files.
    """
    values: dict[str, Any] = {}
    sources: dict[str, Path] = {}
    recipes = []
    for path in paths:
        if not path.is_file():
            raise InputError(f"There is no experiment file {path}.")
        content = settings_in(path)
        if "vary" in content:
            raise InputError(f"{path} is a sweep, with a part `vary`: run `anysubset sweep {path}`.")
        check_current(content, path)
        check_names(content)
        recipes += [path.stem] if {"method", "train"} & set(content) else []
        for name, value in flatten(content).items():
            if name in values and values[name] != value:
                raise InputError(
                    f"{name} is {values[name]!r} in {sources[name]} and {value!r} in {path}: leave one of them out."
                )
            values[name], sources[name] = value, path
    if recipes and "recipe" not in values:
        values["recipe"] = " + ".join(recipes)
    settings: dict[str, Any] = {}
    for name, value in values.items():
        override(settings, name, value)
    return settings


def changed_recipe(recipe: str | None, settings: Mapping[str, Any], changes: Mapping[str, Any]) -> str | None:
    """The name of a recipe, with ` (changed)` appended if an override gives one of its settings another value.

    Args:
        recipe: its name, or None if the settings do not come from a file.
        settings: settings of the recipe by dotted name; other settings have their defaults.
        changes: overrides by dotted name. Those of `NOT_IN_RECIPES` do not count as a change of the recipe.

    >>> changed_recipe("gmd_common", {"train.steps": 100}, {"train.steps": 5})
    'gmd_common (changed)'
    >>> changed_recipe("gmd_common", {"train.steps": 100}, {"train.device": "cpu", "data.root": "lgg"})
    'gmd_common'
    """
    before = {**Experiment().flat(), **settings}
    different = [
        name
        for name, value in changes.items()
        if name.startswith(IN_RECIPES) and name not in NOT_IN_RECIPES and before.get(name) != value
    ]
    return recipe if recipe is None or not different else recipe.removesuffix(CHANGED) + CHANGED


def parse_settings(settings: dict[str, Any], subject: str) -> dict[str, Any]:
    """Convert nested settings to their types, and add the defaults of settings that are missing.

    Args:
        settings: nested.
        subject: where the settings come from; the message of an error starts with it.

    Raises:
        InputError: if a value cannot be converted to the type of its setting.
    """
    try:
        return dict(settings_parser().parse_object(settings).as_dict())
    except (jsonargparse.ArgumentError, TypeError) as error:
        raise InputError(f"{subject} cannot be read: {type_fault(error)}") from error


def override(settings: dict[str, Any], name: str, value: Any) -> None:
    """Set one setting of nested settings, in place, by its dotted name."""
    *groups, last = name.split(".")
    for group in groups:
        if settings.get(group) is None:  # Also if an optional group is null in the file.
            settings[group] = {}
        settings = settings[group]
    settings[last] = value


def settings_in(path: Path) -> dict[str, Any]:
    """Read the settings of a YAML file as nested dicts, unchecked.

    Raises:
        InputError: if the file is not YAML, or not a mapping.
    """
    settings = read_yaml(path)
    if not isinstance(settings, dict):
        raise InputError(f"{path} holds no settings; they look like train: {{steps: 100}}.")
    return settings


def check_current(settings: Mapping[str, Any], path: Path | None = None) -> None:
    """Raise InputError, with the new name, for a setting or value under its name from an earlier version.

    Args:
        settings: nested, or by dotted name.
        path: the file that holds them, for the message.
    """
    where = "" if path is None else f" in {path}"
    for name, value in flatten(settings).items():
        current = current_name(name)
        if current is not None:
            raise InputError(f"Setting {name}{where} is now called {current}.")
        if isinstance(value, str) and (name, value) in RENAMED_VALUES:
            raise InputError(f"The value {value!r} of {name}{where} is now called {RENAMED_VALUES[name, value]!r}.")


def current_name(name: str) -> str | None:
    """The current name of a setting that was renamed; None if `name` is not an old name.

    >>> current_name("holes.rates.text")
    'missingness.rate_by.text'
    """
    for old in sorted(RENAMED, key=len, reverse=True):
        if name == old or name.startswith(f"{old}."):
            return RENAMED[old] + name.removeprefix(old)
    return None


def read_run_experiment(folder: Path) -> Experiment:
    """Read the experiment of a run folder.

    Raises:
        InputError: if the folder has no experiment.yaml, or it is unreadable or from an earlier version.
    """
    path = folder / "experiment.yaml"
    if not path.is_file():
        raise InputError(f"{folder} is no run folder: it has no experiment.yaml. `anysubset fit` makes one.")
    try:
        check_current(settings_in(path))
    except InputError as error:
        raise InputError(f"Run folder {folder} is from an earlier version: {error} Train it again.") from None
    return read_experiment(path)


def check_names(settings: dict[str, Any], defaults: dict[str, Any] | None = None, prefix: str = "") -> None:
    """Check the names of nested settings.

    Args:
        settings: nested settings, such as those of a file.
        defaults: all settings of the group with their defaults; by default those of an experiment.
        prefix: dotted name of the group, with a dot at its end.

    Raises:
        InputError: if a name is unknown (the message gives the nearest one), a group has a plain value, or a setting
            has no value.
    """
    defaults = asdict(Experiment()) if defaults is None else defaults
    for name, value in settings.items():
        if name not in defaults:
            raise unknown("setting", f"{prefix}{name}", [*(f"{prefix}{setting}" for setting in defaults)])
        if value is None and defaults[name] is not None:
            raise InputError(f"{prefix}{name} has no value; leave it out for {defaults[name]!r}.")
        if not isinstance(defaults[name], dict):
            continue
        if not isinstance(value, dict):
            names = f" ({', '.join(defaults[name])})" if defaults[name] else ""
            raise InputError(f"{prefix}{name} is a group of settings{names}, not {repr(value)[:80]}.")
        if f"{prefix}{name}" not in OPEN:
            check_names(value, defaults[name], f"{prefix}{name}.")


def experiment_from(settings: dict[str, Any]) -> Experiment:
    """Create an experiment from nested settings whose names and types were checked."""
    data = dict(settings["data"])
    data["augment"] = AugmentSettings(**data["augment"])
    data["reading"] = ReadingSettings(**data["reading"])
    return Experiment(
        seed=settings["seed"],
        recipe=settings["recipe"],
        init=settings["init"],
        data=DataSettings(**data),
        task=TaskSettings(**settings["task"]),
        method={**Experiment().method, **settings["method"]},
        train=TrainSettings(**settings["train"]),
    )


def write_experiment(experiment: Experiment, path: Path) -> None:
    """Write an experiment as YAML; `read_experiment` reads it back unchanged."""
    path.write_text(yaml.safe_dump(asdict(experiment), sort_keys=False), encoding="utf-8")
