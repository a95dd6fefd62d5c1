"""A sweep: many runs from one file, every combination of what it varies.

    base: [table.yaml, gmd_tables.yaml]     # files beside this one; `settings:` may replace or follow them
    vary:
      data:                                 # variants by name, each with its dotted settings
        rosmap: {data.root: rosmap.npz}
        mosi: {base: [mosi.yaml, gmd_sequences.yaml], data.root: mosi.npz}
      method:
        full: {method.name: full}
        gmd5: {method.name: gmd, method.cases: random=5}
      seed: [0, 1, 2]                       # a list gives its values to the setting of that name
    skip: [{data: mosi, method: gmd5}]      # combinations that are no runs
    evaluate: [test]

What comes later wins: settings over the base, and each axis over those before it. A variant with a base starts again
from that file. A variant that names another method than came before starts from that method's own defaults.
`missingness.rate`, or another way of `anysubset ampute`, draws a missingness file for the run, the same for every
method.

Needs no torch until runs are looked at, so that a fault in the file is told at once.
"""

import csv
import hashlib
import itertools
import json
import re
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from statistics import fmean
from typing import Any

import yaml

from anysubset.errors import InputError, one_line, unknown
from anysubset.experiments.files import (
    changed_recipe,
    check_current,
    joined_settings,
    read_experiment,
    read_run_experiment,
)
from anysubset.experiments.settings import Experiment, flatten
from anysubset.system.files import whole

Settings = dict[str, Any]
PARTS = ("base", "settings", "vary", "skip", "evaluate")
WAYS = ("rate", "rate_by", "absent", "monotone")  # In which `ampute` takes modalities away.
NAME = re.compile(r"[\w+=-][\w.+=-]*")  # Is a folder on every system.


@dataclass(frozen=True)
class Planned:
    """A run of a sweep.

    variants: by axis, the name of the variant. experiment: what is to be run. folder: its run folder.
    missingness: how `experiment.data.missingness` is drawn, for a file that may not be there yet; empty for none.
    """

    variants: dict[str, str]
    experiment: Experiment
    folder: Path
    missingness: Settings = field(default_factory=dict)

    @property
    def name(self) -> str:
        """Of its variants."""
        return "/".join(self.variants.values())


@dataclass(frozen=True)
class Sweep:
    """Runs in the order of the file, and the splits that each is scored on."""

    runs: tuple[Planned, ...]
    splits: tuple[str, ...]


# --------------------------------------------------------------------------------------------------- the file


def read_sweep(path: Path, output: Path, root: Path | None = None) -> Sweep:
    """The runs that a file asks for; none of them is looked at.

    Args:
        path: the file.
        output: the folder of all run folders.
        root: where relative paths of `data.root` begin; by default where the program was started.

    Raises:
        InputError: if the file is faulty, or a setting in it unknown or of the wrong kind.
    """
    if not path.is_file():
        raise InputError(f"There is no file {path}.")
    content = unrepeated(path)
    for name in content:
        if name not in PARTS:
            raise unknown(f"part of {path}", name, PARTS)
    axes = axes_of(content.get("vary"), path)
    first: Settings = {name: content[name] for name in ("base", "settings") if name in content}
    skipped = skipped_of(content.get("skip", []), axes, path)
    runs = []
    for chosen in itertools.product(*(variants.items() for variants in axes.values())):
        variants = dict(zip(axes, (name for name, _ in chosen), strict=True))
        if any(each.items() <= variants.items() for each in skipped):
            continue
        try:
            if not first and not any("base" in variant for _, variant in chosen):
                raise InputError("No experiment to start from: give `base: FILE` or `settings: {...}`.")
            settings: Settings = {}
            for variant in [first] + [variant for _, variant in chosen]:
                settings = applied(settings, variant, path.parent)
            settings.setdefault("recipe", path.stem)
            runs.append(planned(variants, settings, output, root))
        except InputError as error:
            raise InputError(f"{path}, run {'/'.join(variants.values())}: {error}") from None
    return Sweep(tuple(runs), splits_of(content.get("evaluate", ["test"]), path))


def skipped_of(content: Any, axes: Mapping[str, Mapping[str, Settings]], path: Path) -> list[dict[str, str]]:
    """The combinations to pass over: for some axes, the name of a variant each.

    Raises:
        InputError: if that is not what stands there.
    """
    if not isinstance(content, list) or not all(isinstance(each, dict) and each for each in content):
        raise InputError(f"{path}: skip is a list of combinations, such as [{{method: gmd}}], not {content!r}.")
    skipped = [{str(axis): str(name) for axis, name in each.items()} for each in content]
    for each in skipped:
        for axis, name in each.items():
            if axis not in axes:
                raise unknown(f"axis in skip of {path}", axis, axes)
            if name not in axes[axis]:
                raise unknown(f"variant of {axis} in skip of {path}", name, axes[axis])
    return skipped


class OnceLoader(yaml.SafeLoader):
    """YAML in which no name may come twice in one mapping; YAML itself would keep the last and lose the others."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        """As ever, unless a name comes twice."""
        names = [key.value for key, _ in node.value if key.tag != "tag:yaml.org,2002:merge"]
        for name in names:
            if names.count(name) > 1:
                raise yaml.YAMLError(f"{name!r} comes twice in line {node.start_mark.line + 1} or below")
        return super().construct_mapping(node, deep)


def unrepeated(path: Path) -> Settings:
    """What stands in a YAML file that names nothing twice.

    Raises:
        InputError: if it is not such a file.
    """
    try:
        content = yaml.load(path.read_text(encoding="utf-8"), OnceLoader)
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise InputError(f"{path} cannot be read: {one_line(error)}.") from None
    if not isinstance(content, dict):
        raise InputError(f"{path} holds no sweep; it looks like base: FILE and vary: {{seed: [0, 1]}}.")
    return content


def axes_of(vary: Any, path: Path) -> dict[str, dict[str, Settings]]:
    """By axis and name, what each variant sets.

    Raises:
        InputError: if an axis has no variants, or a variant no name that could be a folder's.
    """
    if not isinstance(vary, dict) or not vary:
        raise InputError(f"{path} varies nothing; write such as vary: {{seed: [0, 1]}}.")
    axes: dict[str, dict[str, Settings]] = {}
    for axis, variants in vary.items():
        place = f"{path}, axis {axis!r}"
        if isinstance(variants, list):
            names = [str(value) for value in variants]
            if len(set(names)) < len(names):
                raise InputError(f"{place}: {next(each for each in names if names.count(each) > 1)} comes twice.")
            variants = {name: {axis: value} for name, value in zip(names, variants, strict=True)}
        if not isinstance(variants, dict) or not variants:
            raise InputError(f"{place} is a list of values, or variants such as name: {{train.lr: 0.001}}.")
        for name, settings in variants.items():
            if not NAME.fullmatch(str(name)):
                raise InputError(
                    f"{place}: {name!r} names a folder; use letters, digits and . _ + = - alone "
                    "(variants have names of their own: name: {setting: value})."
                )
            if not isinstance(settings, dict):
                raise InputError(
                    f"{place}: variant {name!r} is a mapping of settings, {{}} for none, not {settings!r}."
                )
        axes[str(axis)] = {str(name): settings for name, settings in variants.items()}
    if "missingness" in next(iter(axes.values())):
        raise InputError(
            f"{path}: no variant of the first axis can be called 'missingness', the folder of missingness files."
        )
    return axes


def applied(settings: Settings, variant: Settings, folder: Path) -> Settings:
    """Dotted settings, with those of a variant over them; its base is looked up in a folder.

    Raises:
        InputError: if its base is not there, or holds what is no setting.
    """
    settings = dict(settings)
    given = dict(variant)
    if "base" in given:
        base = given.pop("base")
        files = [folder / str(name) for name in (base if isinstance(base, list) else [base])]
        settings = flatten(joined_settings(files))
    if "settings" in given:
        inline = given.pop("settings")
        if not isinstance(inline, dict):
            raise InputError(f"`settings` is a mapping such as {{train.steps: 100}}, not {inline!r}.")
        given = {**inline, **given}
    flat = flatten(given)
    recipe = changed_recipe(settings.get("recipe"), settings, flat)
    if "method.name" in flat and flat["method.name"] != settings.get("method.name"):
        settings = {name: value for name, value in settings.items() if not name.startswith("method.")}
    return {**settings, "recipe": recipe, **flat} if recipe is not None else {**settings, **flat}


def planned(variants: dict[str, str], settings: Settings, output: Path, root: Path | None) -> Planned:
    """The run of these settings.

    Raises:
        InputError: if a setting is unknown or of the wrong kind.
    """
    for name, value in settings.items():
        inside = [other for other in settings if other.startswith(f"{name}.")]
        if inside:
            raise InputError(f"{name} is a group of settings ({', '.join(inside)}), not {value!r}.")
    check_current(settings)
    prefix = "missingness."
    missingness = {name.removeprefix(prefix): value for name, value in settings.items() if name.startswith(prefix)}
    experiment = read_experiment(None, {name: each for name, each in settings.items() if not name.startswith(prefix)})
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
    """How missingness is drawn, in full; empty where no way is named, whatever the seed.

    Raises:
        InputError: if a setting is unknown, or of the wrong kind.
    """
    for name, value in missingness.items():
        kinds: dict[str, tuple[type, ...]] = {
            **{"rate": (int, float), "monotone": (int, float), "absent": (list,)},
            **{"split": (str,), "seed": (int,)},
        }
        group, _, modality = name.partition(".")
        if group == "rate_by" and modality:
            kinds[name] = (int, float)
        if name not in kinds:
            raise unknown("setting", f"missingness.{name}", [f"missingness.{way}" for way in (*WAYS, "split", "seed")])
        wrong = not isinstance(value, kinds[name]) or isinstance(value, bool)
        if wrong or (name == "seed" and int(value) < 0):
            wanted = {"absent": "a list of modalities", "split": "the name of a split", "seed": "0 or more"}
            raise InputError(f"missingness.{name} is {wanted.get(name, 'a share from 0 to 1')}, not {value!r}.")
    rates = {name.removeprefix("rate_by."): value for name, value in missingness.items() if name.startswith("rate_by.")}
    ways = {name: missingness[name] for name in WAYS if name in missingness} | ({"rate_by": rates} if rates else {})
    if not ways:
        return {}
    if len(ways) > 1:
        came = " and ".join(f"missingness.{name}" for name in ways)
        raise InputError(f"Give exactly one of missingness.{', missingness.'.join(WAYS)}; {came} came.")
    return {**ways, "split": missingness.get("split", "train"), "seed": missingness.get("seed", 0)}


def missingness_name(data: Any, missingness: Settings) -> str:
    """A name that changes with whatever decides which modalities go, and is the same for every method."""
    facts = [Path(data.root).name, data.splits and Path(data.splits).name, data.folds, data.fold, data.modalities]
    facts += [data.name, asdict(data.reading), missingness]
    code = hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:8]
    way = next(name for name in WAYS if name in missingness)
    value = str(missingness[way]) if isinstance(missingness[way], int | float) else ""
    return f"{Path(data.root).stem}-{way}{value}-seed{missingness['seed']}-{code}.json"


def splits_of(given: Any, path: Path) -> tuple[str, ...]:
    """The splits that are scored."""
    if not isinstance(given, list) or not all(isinstance(name, str) for name in given) or len(set(given)) < len(given):
        raise InputError(f"{path}: `evaluate` is a list of splits such as [test], each once, not {given!r}.")
    return tuple(given)


# ------------------------------------------------------------------------------------------------- what is done


def check_folder(run: Planned) -> None:
    """A run folder that is there already is of the same experiment, on data of the same names.

    Raises:
        InputError: if it is not.
    """
    from anysubset.training.run import check_same

    stored = run.folder / "experiment.yaml"
    if not stored.is_file():
        return
    found = read_run_experiment(run.folder).flat()
    check_same(run.experiment, found, stored)
    # A continuation may find its data elsewhere; in a sweep, variants may differ in nothing else.
    for name in ("root", "splits", "missingness"):
        mine, theirs = getattr(run.experiment.data, name), found.get(f"data.{name}")
        if (mine and Path(mine).resolve().name) != (theirs and Path(theirs).name):
            raise InputError(
                f"{stored} belongs to another experiment: data.{name} is {theirs}, not {mine}. "
                "Choose another --output, or remove that run."
            )


def lacking(run: Planned, splits: Sequence[str]) -> list[str] | None:
    """The splits that a trained run has no scores on; None where it is not trained to its end."""
    from anysubset.scoring.scores import read_rows
    from anysubset.system.tensor_file import read_facts

    checkpoint = run.folder / "checkpoints" / "latest.safetensors"
    if not read_facts(checkpoint).get("finished"):
        return None
    scores = run.folder / "scores.csv"
    # Scores that are older than the end of the training are of other weights.
    if not scores.is_file() or scores.stat().st_mtime_ns < checkpoint.stat().st_mtime_ns:
        return list(splits)
    known = {row["split"] for row in read_rows(scores) if row["dataset"] == run.experiment.data.name}
    return [name for name in splits if name not in known]


# -------------------------------------------------------------------------------------------------- the results


def result_of(run: Planned, splits: Sequence[str]) -> Settings:
    """One line of the table: what the run is, how it was chosen on validation, and its scores.

    `metric`, `step` and `validation` are of the best weights. `<split> <metric>` is the mean over the scenarios, of a
    metric over the set or, where there is none of that name, over samples and regions; none where it is not defined
    in every scenario.
    """
    from anysubset.system.tensor_file import read_facts

    said = {"method.name": run.experiment.method["name"], "seed": run.experiment.seed}
    line: Settings = {"run": run.name, **run.variants}
    line |= {name: value for name, value in said.items() if name not in line}
    best = read_facts(run.folder / "checkpoints" / "best.safetensors")
    if best:
        line |= {"metric": best["metric"], "step": best["step"], "validation": best["validation_mean"]}
    scores = run.folder / "scores.csv"
    if scores.is_file():
        line |= mean_scores(scores, run.experiment.data.name, splits)
    return line


def mean_scores(path: Path, dataset: str, splits: Sequence[str]) -> dict[str, float]:
    """Mean over all scored scenarios of every metric of each split, from a `scores.csv`."""
    from anysubset.scoring import robustness
    from anysubset.scoring.scores import ALL, RECORDED, of_scenarios, read_rows

    values: dict[tuple[str, str], dict[tuple[str, ...], dict[bool, list[float]]]] = {}
    listed: dict[str, dict[tuple[str, ...], None]] = {split: {} for split in splits}
    for row in of_scenarios(read_rows(path)):
        if row["split"] in listed and row["dataset"] == dataset:
            scenario = tuple(row["scenario"].split("+"))
            listed[row["split"]][scenario] = None
            kinds = values.setdefault((row["split"], row["metric"]), {}).setdefault(scenario, {})
            kinds.setdefault(row["sample"] == ALL, []).append(float(row["value"]))
    means = {}
    for (split, metric), scenarios in values.items():
        by_scenario = {scenario: fmean(kinds.get(True) or kinds[False]) for scenario, kinds in scenarios.items()}
        mean = robustness.mean(by_scenario, listed[split])
        if metric not in RECORDED and mean is not None:
            means[f"{split} {metric}"] = mean
    return means


def write_results(path: Path, lines: Iterable[Mapping[str, Any]]) -> None:
    """`sweep.csv`: a line a run; a column is blank where a run has nothing for it."""
    lines = list(lines)
    columns = list(dict.fromkeys(name for line in lines for name in line))
    with whole(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, columns)
        writer.writeheader()
        writer.writerows(lines)
