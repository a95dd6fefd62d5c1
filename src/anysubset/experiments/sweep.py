"""Sweeps: many runs from one YAML file, one for each combination of its variants.

    base: [table.yaml, gmd_tables.yaml]     # files in the same folder; `settings:` may replace or follow them
    vary:
      data:                                 # an axis: variants by name, each with its dotted settings
        rosmap: {data.root: rosmap.npz}
        mosi: {base: [mosi.yaml, gmd_sequences.yaml], data.root: mosi.npz}
      method:
        full: {method.name: full}
        gmd5: {method.name: gmd, method.cases: random=5}
      seed: [0, 1, 2]                       # a list: values of the setting that the axis is called after
    skip: [{data: mosi, method: gmd5}]      # combinations to leave out
    evaluate: [test]                        # splits on which every run is scored

Later settings replace earlier ones: `settings` those of the base, and each axis those of the axes before it. A variant
with a base of its own starts again from these files. A variant that names another method keeps the options of the
network (such as `width` and `preset`), and takes the defaults of that method for all other options (such as `cases` and
`rule`). `missingness.rate`, or another option of `anysubset ampute`, draws a missingness file for the run, the same for
every method.

This module imports neither torch nor MONAI, so that errors in the file are reported without delay.
"""

import hashlib
import itertools
import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from anysubset.errors import InputError, unknown
from anysubset.experiments.files import changed_recipe, check_current, joined_settings, read_experiment
from anysubset.experiments.own_options import is_own_option
from anysubset.experiments.settings import Experiment, flatten
from anysubset.system.numbers import LARGEST_SEED
from anysubset.system.yaml_file import read_yaml

Settings = dict[str, Any]
PARTS = ("base", "settings", "vary", "skip", "evaluate")
WAYS = ("rate", "rate_by", "absent", "monotone")  # Options by which `ampute` and a sweep draw missingness.
NAME = re.compile(r"[\w+=-][\w.+=-]*")  # A folder name that is valid on every operating system.


@dataclass(frozen=True)
class Planned:
    """A run of a sweep.

    Args:
        variants: name of its variant by axis.
        experiment: its settings.
        folder: its run folder.
        missingness: options for drawing the file `experiment.data.missingness`; empty if no file is drawn.
    """

    variants: dict[str, str]
    experiment: Experiment
    folder: Path
    missingness: Settings = field(default_factory=dict)

    @property
    def name(self) -> str:
        """The names of the variants, joined by slashes, such as `gmd/rosmap/0`."""
        return "/".join(self.variants.values())


@dataclass(frozen=True)
class Sweep:
    """The runs of a sweep, in the order of its file, and the splits on which every run is scored."""

    runs: tuple[Planned, ...]
    splits: tuple[str, ...]


def read_sweep(path: Path, output: Path, root: Path | None = None) -> Sweep:
    """Read a sweep file; no data are read.

    Args:
        path: the YAML file.
        output: the folder that holds all run folders.
        root: the folder to which a relative `data.root` refers; by default the working directory.

    Raises:
        InputError: if the file is faulty, or a setting is unknown or of the wrong type.
    """
    if not path.is_file():
        raise InputError(f"There is no file {path}.")
    content = parts_of(path)
    for name in content:
        if name not in PARTS:
            raise unknown(f"part of {path}", name, PARTS)
    axes = axes_of(content.get("vary"), path)
    start: Settings = {name: content[name] for name in ("base", "settings") if name in content}
    skipped = skipped_of(content.get("skip", []), axes, path)
    runs = []
    for names in itertools.product(*axes.values()):
        names_by_axis = dict(zip(axes, names, strict=True))
        if any(combination.items() <= names_by_axis.items() for combination in skipped):
            continue
        variants = [axes[axis][name] for axis, name in names_by_axis.items()]
        try:
            if not start and not any("base" in variant for variant in variants):
                raise InputError("No experiment to start from: give `base: FILE` or `settings: {...}`.")
            settings: Settings = {}
            for variant in [start, *variants]:
                settings = applied(settings, variant, path.parent)
            settings.setdefault("recipe", path.stem)
            runs.append(planned(names_by_axis, settings, output, root))
        except InputError as error:
            raise InputError(f"{path}, run {'/'.join(names)}: {error}") from None
    return Sweep(tuple(runs), splits_of(content.get("evaluate", ["test"]), path))


def skipped_of(content: Any, axes: Mapping[str, Mapping[str, Settings]], path: Path) -> list[dict[str, str]]:
    """The combinations to leave out: names of variants by axis. An axis without a name matches all its variants.

    Args:
        content: of `skip` in the file.
        axes: variants by axis and name.
        path: the file, for messages.

    Raises:
        InputError: if `content` is not a list of such combinations, or an axis or variant is unknown.
    """
    if not isinstance(content, list) or not all(isinstance(item, dict) and item for item in content):
        raise InputError(f"{path}: skip is a list of combinations, such as [{{method: gmd}}], not {content!r}.")
    skipped = [{str(axis): str(name) for axis, name in item.items()} for item in content]
    for combination in skipped:
        for axis, name in combination.items():
            if axis not in axes:
                raise unknown(f"axis in skip of {path}", axis, axes)
            if name not in axes[axis]:
                raise unknown(f"variant of {axis} in skip of {path}", name, axes[axis])
    return skipped


def parts_of(path: Path) -> Settings:
    """Read the parts of a sweep file.

    Raises:
        InputError: if the file is not YAML, is not a mapping, or a name occurs twice in one mapping.
    """
    content = read_yaml(path)
    if not isinstance(content, dict):
        raise InputError(f"{path} holds no sweep; it looks like base: FILE and vary: {{seed: [0, 1]}}.")
    return content


def axes_of(vary: Any, path: Path) -> dict[str, dict[str, Settings]]:
    """The settings of each variant, by axis and name.

    Args:
        vary: content of `vary` in the file: by axis, a mapping of variants (name -> settings), or a list of values of
            the setting that the axis is called after; then each value is a variant with its own name.
        path: the file, for messages.

    Raises:
        InputError: if `vary` or an axis has no variants, a value occurs twice, or a variant is not a mapping or has a
            name that cannot be that of a folder.
    """
    if not isinstance(vary, dict) or not vary:
        raise InputError(f"{path} needs axes under `vary`, such as vary: {{seed: [0, 1]}}.")
    axes: dict[str, dict[str, Settings]] = {}
    for axis, variants in vary.items():
        where = f"{path}, axis {axis!r}"
        if isinstance(variants, list):
            names = [str(value) for value in variants]
            if len(set(names)) < len(names):
                raise InputError(f"{where}: {next(name for name in names if names.count(name) > 1)} comes twice.")
            variants = {name: {axis: value} for name, value in zip(names, variants, strict=True)}
        if not isinstance(variants, dict) or not variants:
            raise InputError(f"{where} must be a list of values, or variants such as name: {{train.lr: 0.001}}.")
        for name, settings in variants.items():
            if not NAME.fullmatch(str(name)):
                raise InputError(
                    f"{where}: a variant names a folder, which cannot be called {name!r}: use letters, digits and "
                    ". _ + = - only, or name the variant yourself, as in name: {setting: value}."
                )
            if not isinstance(settings, dict):
                raise InputError(
                    f"{where}: variant {name!r} must be a mapping of settings ({{}} for none), not {settings!r}."
                )
        axes[str(axis)] = {str(name): settings for name, settings in variants.items()}
    if "missingness" in next(iter(axes.values())):
        raise InputError(
            f"{path}: no variant of the first axis can be called 'missingness', the folder of missingness files."
        )
    return axes


def applied(settings: Settings, variant: Settings, folder: Path) -> Settings:
    """Apply a variant: return settings in which those of the variant replace earlier ones.

    Args:
        settings: by dotted name.
        variant: nested or dotted settings; optionally `base` (files to start from) and `settings`.
        folder: the folder of the files in `base`.

    Raises:
        InputError: if a file of `base` is missing or faulty.
    """
    settings = dict(settings)
    changes = dict(variant)
    if "base" in changes:
        base = changes.pop("base")
        files = [folder / str(name) for name in (base if isinstance(base, list) else [base])]
        settings = flatten(joined_settings(files))
    if "settings" in changes:
        inline = changes.pop("settings")
        if not isinstance(inline, dict):
            raise InputError(f"`settings` is a mapping such as {{train.steps: 100}}, not {inline!r}.")
        changes = {**inline, **changes}
    flat = flatten(changes)
    recipe = changed_recipe(settings.get("recipe"), settings, flat)
    if "method.name" in flat and flat["method.name"] != settings.get("method.name"):
        settings = {name: value for name, value in settings.items() if not is_own_option(name)}
    return {**settings, "recipe": recipe, **flat} if recipe is not None else {**settings, **flat}


def planned(variants: dict[str, str], settings: Settings, output: Path, root: Path | None) -> Planned:
    """Create the run of one combination of variants.

    Args:
        variants: name of the variant by axis.
        settings: by dotted name; `missingness.*` are the options for drawing missingness.
        output: the folder that holds all run folders.
        root: the folder to which a relative `data.root` refers; None for the working directory.

    Raises:
        InputError: if a setting is unknown or of the wrong type.
    """
    for name, value in settings.items():
        inside = [other for other in settings if other.startswith(f"{name}.")]
        if inside:
            raise InputError(f"{name} is a group of settings ({', '.join(inside)}), not {value!r}.")
    check_current(settings)
    prefix = "missingness."
    missingness = {name.removeprefix(prefix): value for name, value in settings.items() if name.startswith(prefix)}
    experiment = read_experiment(None, {name: value for name, value in settings.items() if not name.startswith(prefix)})
    data = experiment.data
    if root is not None:
        data = replace(data, root=str(root / data.root))
    missingness = checked_missingness(missingness)
    if missingness:
        if data.missingness is not None:
            raise InputError("Set data.missingness to read a file or missingness.* to draw one, not both.")
        data = replace(data, missingness=str(output / "missingness" / missingness_name(data, missingness)))
    return Planned(variants, replace(experiment, data=data), output.joinpath(*variants.values()), missingness)


def checked_missingness(missingness: Settings) -> Settings:
    """Check the options for drawing missingness, and add the defaults of `split` and `seed`.

    Returns an empty dict if none of `WAYS` is set, so that no missingness is drawn.

    Args:
        missingness: settings `missingness.*`, by name without this prefix.

    Raises:
        InputError: if a setting is unknown or of the wrong type, or several of `WAYS` are set.
    """
    for name, value in missingness.items():
        kinds: dict[str, tuple[type, ...]] = {
            "rate": (int, float),
            "monotone": (int, float),
            "absent": (list,),
            "split": (str,),
            "seed": (int,),
        }
        group, _, modality = name.partition(".")
        if group == "rate_by" and modality:
            kinds[name] = (int, float)
        if name not in kinds:
            raise unknown("setting", f"missingness.{name}", [f"missingness.{way}" for way in (*WAYS, "split", "seed")])
        wrong = not isinstance(value, kinds[name]) or isinstance(value, bool)
        if wrong or (name == "seed" and not 0 <= int(value) <= LARGEST_SEED):
            wanted = {"absent": "a list of modalities", "split": "the name of a split", "seed": "0 or more"}
            raise InputError(f"missingness.{name} is {wanted.get(name, 'a share from 0 to 1')}, not {value!r}.")
    rates = {name.removeprefix("rate_by."): value for name, value in missingness.items() if name.startswith("rate_by.")}
    ways = {name: missingness[name] for name in WAYS if name in missingness} | ({"rate_by": rates} if rates else {})
    if not ways:
        return {}
    if len(ways) > 1:
        received = " and ".join(f"missingness.{name}" for name in ways)
        raise InputError(f"Give exactly one of missingness.{', missingness.'.join(WAYS)}; {received} came.")
    return {**ways, "split": missingness.get("split", "train"), "seed": missingness.get("seed", 0)}


def missingness_name(data: Any, missingness: Settings) -> str:
    """The name of the missingness file.

    It contains a hash of all settings that influence the draw, but not of the method, so all methods share the file.
    """
    facts = [Path(data.root).name, data.splits and Path(data.splits).name, data.folds, data.fold, data.modalities]
    facts += [data.name, asdict(data.reading), missingness]
    code = hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:8]
    way = next(name for name in WAYS if name in missingness)
    value = str(missingness[way]) if isinstance(missingness[way], int | float) else ""
    return f"{Path(data.root).stem}-{way}{value}-seed{missingness['seed']}-{code}.json"


def splits_of(content: Any, path: Path) -> tuple[str, ...]:
    """The splits on which the runs are scored.

    Args:
        content: of `evaluate` in the file.
        path: the file, for messages.

    Raises:
        InputError: if `content` is not a list of different names.
    """
    if (
        not isinstance(content, list)
        or not all(isinstance(name, str) for name in content)
        or len(set(content)) < len(content)
    ):
        raise InputError(f"{path}: `evaluate` is a list of splits such as [test], each once, not {content!r}.")
    return tuple(content)
