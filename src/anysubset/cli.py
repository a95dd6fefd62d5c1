"""The command line: the only file that joins the others.

A command imports what it needs when it runs, so that `anysubset --help` loads neither torch nor MONAI.
"""

import json
import os
import re
import sys
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import jsonargparse
from rich.table import Table

from anysubset.devices import device_of
from anysubset.errors import InputError, one_line, unknown
from anysubset.experiment import Experiment, ReadingSettings, add_settings, flatten, read_experiment
from anysubset.terminal import (
    say,
    show_diagnosis,
    show_feature_scores,
    show_holes,
    show_random_missing,
    show_results,
    show_support,
    show_table,
    show_volume_scores,
    show_volumes,
    track,
    track_samples,
    track_steps,
)

if TYPE_CHECKING:
    from anysubset.data.features import Features
    from anysubset.data.holes import Present
    from anysubset.data.signature import Signature
    from anysubset.data.volumes import Volumes
    from anysubset.methods import Method
    from anysubset.prediction import Prediction
    from anysubset.report.pictures import Gallery
    from anysubset.report.results import Together
    from anysubset.scores import Score
    from anysubset.segmentation import Segmentation
    from anysubset.sweep import Planned

Given = dict[str, Any]


class Opened(NamedTuple):
    """A trained run: its experiment, its task, the method with the best weights, the facts of that checkpoint, and what
    it knows of its features, if they are features.
    """

    experiment: Experiment
    task: "Segmentation | Prediction"
    method: "Method"
    facts: Given
    signature: "Signature | None"


# ------------------------------------------------------------------------------------------------- the parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit code 0: success; 2: wrong input, told in one line; 130: interrupted; 1: a fault of the program."""
    try:
        parser, commands = make_parser()
        given = parse(parser, commands, list(sys.argv[1:] if arguments is None else arguments))
        name = given.pop("command")
        return COMMANDS[name][1](given.get(name) or {}) or 0
    except InputError as error:
        print(f"anysubset: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("anysubset: interrupted; `fit --resume` goes on from the last checkpoint.", file=sys.stderr)
        return 130
    except BrokenPipeError:
        sys.stderr.close()
        return 1


def parse(
    parser: jsonargparse.ArgumentParser, commands: dict[str, jsonargparse.ArgumentParser], arguments: list[str]
) -> Given:
    """What was given, and nothing of what was not.

    Raises:
        InputError: for an unknown command or option, with the nearest one.
    """
    if not arguments:
        arguments = ["--help"]
    if not arguments[0].startswith("-") and arguments[0] not in commands:
        raise unknown("command", arguments[0], commands)
    try:
        parsed: Given = parser.parse_args(arguments, defaults=False).as_dict()
    except jsonargparse.ArgumentError as error:
        message = one_line(error)
        found = re.search(r"[Uu]nrecognized arguments?: (-[^\s=]*)", message)
        if found:
            actions = commands[arguments[0]]._actions
            options = [option for action in actions for option in action.option_strings if option.startswith("--")]
            raise unknown(
                f"option of `{arguments[0]}`", found[1], [o for o in options if not o.endswith("+")]
            ) from error
        raise InputError(f"{message} (see `anysubset {arguments[0]} --help`)") from error
    return parsed


def make_parser() -> tuple[jsonargparse.ArgumentParser, dict[str, jsonargparse.ArgumentParser]]:
    """The parser of everything, and the parser of each command."""
    parser = jsonargparse.ArgumentParser(
        prog="anysubset", description="One multimodal model for any subset of its modalities.", exit_on_error=False
    )
    parser.add_argument("--version", action="version", version=f"anysubset {version()}")
    subcommands = parser.add_subcommands(dest="command", title="commands", metavar="COMMAND")
    made = {}
    for name, (add_options, command) in COMMANDS.items():
        description = (command.__doc__ or "").strip()
        made[name] = jsonargparse.ArgumentParser(description=description, exit_on_error=False)
        add_options(made[name])
        subcommands.add_subcommand(name, made[name], help=description.splitlines()[0])
    return parser, made


def version() -> str:
    """Of the package."""
    import anysubset

    return anysubset.__version__


# ------------------------------------------------------------------------------------------------- the commands


def demo_options(parser: jsonargparse.ArgumentParser) -> None:
    """Of `demo`."""
    parser.add_argument("--task", choices=["segmentation", "sentiment"], default="segmentation", help="What to show.")
    parser.add_argument("--output", type=Path, help="Folder of the data and the two runs; by default runs/demo...")
    parser.add_argument("--seed", type=int, default=0, help="Of the data and of both runs.")
    parser.add_argument("--train.steps", type=int, help="Optimizer steps of each run.")


def demo(given: Given) -> None:
    """Make a set, train on complete input and with GMD, and compare them in every scenario.

    Phantom patients with tumours, or utterances of text, audio and vision. Goes on where it was stopped when it is
    called again.
    """
    sentiment = given.get("task") == "sentiment"
    folder = Path(given.get("output") or ("runs/demo_sentiment" if sentiment else "runs/demo"))
    (demo_sentiment if sentiment else demo_segmentation)(folder, given.get("seed", 0), given.get("train", {}))


def demo_segmentation(folder: Path, seed: int, settings: Given) -> None:
    """Phantom patients; the table of Dice of both methods."""
    from anysubset.data.phantom import write_phantoms
    from anysubset.data.volumes import Volumes
    from anysubset.scores import means

    patients = folder / "patients"
    if not patients.exists():
        say(f"Making phantom patients in {patients}: enhancing tumour shows almost only in t1ce")
        write_phantoms(patients, counts={"train": 24, "val": 4, "test": 12}, size=(48, 48, 32), seed=seed)
    found, dataset = demo_runs("segmentation", folder, patients, seed, settings)
    assert isinstance(dataset, Volumes)
    tables = {method: means(scores, "dice") for method, scores in found.items()}
    show_volume_scores(tables, dataset, "test", "training on complete input (full) against GMD")
    say(
        "full: trained as most are today, on complete input only. gmd: trained on every case, conflicts removed.\n"
        "Rows without t1ce: what happens when it goes missing.\n"
        f"Runs: {folder / 'full'} and {folder / 'gmd'}; patients: {patients}\n"
        f"Report: {folder / 'report.html'}\n"
        f"Next: anysubset predict {folder / 'gmd'} {next(iter(dataset.patients.values())).sources['t1'].path.parent}"
    )


def demo_sentiment(folder: Path, seed: int, settings: Given) -> None:
    """Utterances of which text says most, and the training ones lack some modalities; both methods' metrics."""
    from anysubset.data.arrays import write_table
    from anysubset.data.features import Features
    from anysubset.data.trimodal import trimodal

    table = folder / "utterances.npz"
    if not table.exists():
        say(f"Making utterances in {table}: text says most, and half of all modalities are missing in training")
        folder.mkdir(parents=True, exist_ok=True)
        write_table(trimodal(missing_rate=0.5, informed={}, seed=seed), table)
    found, dataset = demo_runs("sentiment", folder, table, seed, settings)
    assert isinstance(dataset, Features)
    title = "training on complete input (full) against GMD"
    show_feature_scores(found, dataset, "test", title, ("acc2", "mae", "corr"))
    say(
        "full: trained as most are today, on complete input only. gmd: trained on every case, conflicts removed.\n"
        f"Runs: {folder / 'full'} and {folder / 'gmd'}; utterances: {table}\n"
        f"Report: {folder / 'report.html'}\n"
        f"Next: anysubset predict {folder / 'gmd'} {table}"
    )


def demo_runs(
    task: str, folder: Path, root: Path, seed: int, settings: Given
) -> tuple[dict[str, list["Score"]], "Volumes | Features"]:
    """Trains both methods, scores them on the test split, and writes their report."""
    found = {}
    for method in ("full", "gmd"):
        overrides = {"seed": seed, "data.root": str(root), "method.name": method}
        overrides |= {f"train.{name}": value for name, value in settings.items()}
        experiment = read_experiment(Path(__file__).with_name(f"demo_{task}.yaml"), overrides)
        say()
        train_run(experiment, folder / method, resume=True)
        found[method], _, dataset = score_run(folder / method, "test", None, distances=False)
    folders = [folder / method for method in found]
    write_page(folders, folder / "report.html", "test", {"reference": "full"}, images=task == "segmentation")
    return found, dataset


def inspect_options(parser: jsonargparse.ArgumentParser) -> None:
    """Of `inspect`."""
    parser.add_argument(
        "path",
        type=Path,
        help="Folder of patients, one patient, Decathlon folder, or CSV manifest; or a table of features.",
    )
    parser.add_class_arguments(ReadingSettings, "reading")
    parser.add_argument("--json", action="store_true", help="Print the whole report as JSON.")
    parser.add_argument("--write", type=Path, help="Write a dataset file: the `data` section of an experiment.")


def inspect(given: Given) -> None:
    """Show what is there: samples, modalities, scenarios, shapes, labels, splits and faults."""
    from anysubset.data.description import inspect_table
    from anysubset.data.inspection import inspect_volumes

    path, reading = Path(given["path"]), given.get("reading", {})
    features = bool(reading) or holds_features(path)
    target = Path(given["write"]) if given.get("write") else None
    for file in [target, target.with_suffix(".splits.json")] if target is not None else []:
        if file.exists():
            raise InputError(f"{file} is there already; choose another name.")
    report = inspect_table(path, **reading) if features else inspect_volumes(path)
    if features and "samples" not in report:
        raise InputError(report["faults"][0])
    if given.get("json"):
        print(json.dumps(report, indent=2))
    elif features:
        show_table(report)
    else:
        show_volumes(report)
    if target is not None and features:
        write_features(report, path, reading, target)
    elif target is not None:
        write_dataset(report, path, target)


def holds_features(path: Path) -> bool:
    """Whether a path is a table of features: a file that names no volumes, or a folder of tables."""
    if path.is_dir():
        folders = any(each.is_dir() for each in path.iterdir())
        return any(path.glob("*.csd")) or (any(path.glob("*.csv")) and not folders)
    if not path.is_file() or ".nii" in path.name:
        return False
    with path.open("rb") as file:
        return path.suffix.lower() != ".csv" or b".nii" not in file.read(100_000)


def write_features(report: Given, path: Path, reading: Given, target: Path) -> None:
    """An experiment on a table, with folds where its file has no splits, and a training that suits small tables.

    The defaults of `train` are for volumes.
    """
    import yaml

    train = {"steps": 500, "batch": 64, "optimizer": "adamw", "lr": 1e-3, "weight_decay": 1e-2, "schedule": "cosine"}
    train |= {"warmup": 20, "clip": 1.0, "validate_every": 25}

    settings: Given = {"name": "features", "root": str(path), "modalities": list(report["modalities"])}
    if "train" not in report["splits"]:
        settings["folds"] = 5
        print("The file has no split 'train': folds are drawn, the first of five is the test", file=sys.stderr)
    if reading:
        settings["reading"] = reading
    target.write_text(yaml.safe_dump({"data": settings, "train": train}, sort_keys=False), encoding="utf-8")
    print(f"Wrote {target}", file=sys.stderr)


def write_dataset(report: Given, path: Path, target: Path) -> None:
    """The `data` section of an experiment; with splits drawn for it, where none lie beside the patients."""
    import yaml

    from anysubset.data.inspection import dataset_file
    from anysubset.data.patients import find_patients
    from anysubset.data.splits import draw_splits

    settings = dataset_file(report, path)
    if not report["splits"]:
        usable = [patient.id for patient in find_patients(path) if patient.label and patient.id not in report["faults"]]
        splits = target.with_suffix(".splits.json")
        splits.write_text(json.dumps(draw_splits(usable), indent=1) + "\n", encoding="utf-8")
        settings["data"]["splits"] = str(splits)
        print(f"Wrote {splits}: no splits lie beside the patients, so these were drawn", file=sys.stderr)
    target.write_text(yaml.safe_dump(settings, sort_keys=False), encoding="utf-8")
    print(f"Wrote {target}", file=sys.stderr)


def convert_options(parser: jsonargparse.ArgumentParser) -> None:
    """Of `convert`."""
    parser.add_argument("table", type=Path, help="Table of features, a file or a folder; it is not changed.")
    parser.add_argument("--output", type=Path, required=True, help="File to write, .npz or .safetensors.")
    parser.add_class_arguments(ReadingSettings, "reading")


def convert(given: Given) -> None:
    """Write a table of any known format as our own: a file that is read fast, and with no settings.

    What `reading` chose, cleaned or dropped is so in the new file.
    """
    from anysubset.data.arrays import check_ending, write_table
    from anysubset.data.features import described, notes_of, sizes
    from anysubset.data.formats import read_table

    path, output = Path(given["table"]), Path(given["output"])
    check_ending(output)
    check_free(output)
    table = read_table(path, **given.get("reading", {}))
    write_table(table, output)
    for note in notes_of(table):
        say(f"note: {note}")
    say(f"Wrote {output}: {described(table)}; {sizes(table.splits) if table.splits else 'no splits'}")


def ampute_options(parser: jsonargparse.ArgumentParser) -> None:
    """Of `ampute`."""
    parser.add_argument("path", type=Path, help="Folder of patients, or table of features; neither is changed.")
    parser.add_argument("--output", type=Path, required=True, help="File to write, for the setting data.holes.")
    parser.add_argument("--rate", type=float, help="Share of all modalities that goes, completely at random.")
    parser.add_argument("--rates", type=dict[str, float], help="Probability by modality: --rates.text 0.5 ...")
    parser.add_argument("--absent", type=str, nargs="+", help="Modalities that go altogether.")
    parser.add_argument("--monotone", type=float, help="Probability that a modality goes with all that follow it.")
    parser.add_argument("--split", default="train", help="Whose modalities go: a split, or `all`.")
    parser.add_argument("--splits", type=Path, help="File of splits; by default the data's own.")
    parser.add_argument("--seed", type=int, default=0, help="Of what is drawn.")
    parser.add_class_arguments(ReadingSettings, "reading")


def ampute(given: Given) -> None:
    """Take modalities away, at random or whole: writes which ones stay with whom.

    Every sample keeps one at least. `fit` reads the file as data.holes and never looks at what is not in it.
    """
    from anysubset.data.holes import write_holes
    from anysubset.data.presence import of_patients, of_table

    path, output, reading = Path(given["path"]), Path(given["output"]), given.get("reading", {})
    split, seed = given.get("split", "train"), given.get("seed", 0)
    check_free(output)
    if seed < 0:
        raise InputError(f"The seed must be 0 or more, not {seed}.")
    splits = Path(given["splits"]) if given.get("splits") else None
    features = bool(reading) or holds_features(path)
    found = of_table(path, splits, **reading) if features else of_patients(path, splits)
    before = found.of(split)
    after, how = thinned(before, found.modalities, given, seed)
    had, have = (sum(map(len, each.values())) for each in (before, after))
    about = {"how": how, "seed": seed, "split": split, "missing": round(1 - have / had, 4)}
    write_holes(output, after, about)
    show_holes(before, after, found.modalities)
    say(f"{had - have} of {had} modalities are taken away ({1 - have / had:.1%}): {how}; split {split!r}, seed {seed}")
    say(f"Wrote {output}; use it with --data.holes {output}")


def thinned(before: "Present", modalities: Sequence[str], given: Given, seed: int) -> tuple["Present", str]:
    """What one way of removal leaves, and the way in words.

    Raises:
        InputError: if not exactly one way is asked for.
    """
    import numpy as np

    from anysubset.data import amputation

    ways = [name for name in ("rate", "rates", "absent", "monotone") if given.get(name) is not None]
    if len(ways) != 1:
        raise InputError(
            "Say in one way what goes: --rate R, --rates.MODALITY R, --absent MODALITY or --monotone R; "
            f"{' and '.join(f'--{way}' for way in ways) or 'none'} came."
        )
    value, generator = given[ways[0]], np.random.default_rng(seed)
    if ways == ["rate"]:
        return amputation.remove_at_random(before, value, generator), f"rate {value} at random, one always stays"
    if ways == ["rates"]:
        words = ", ".join(f"{name} {rate}" for name, rate in value.items())
        return amputation.remove_by_rates(
            before, value, generator
        ), f"at random by modality ({words}), one always stays"
    if ways == ["absent"]:
        return amputation.remove(before, value), f"without {', '.join(value)}"
    order = [name for name in modalities if any(name in names for names in before.values())]
    words = f"monotone with rate {value} in the order {', '.join(order)}"
    return amputation.remove_monotone(before, value, generator, order), words


def fit_options(parser: jsonargparse.ArgumentParser) -> None:
    """Of `fit`."""
    parser.add_argument("experiment", type=Path, help="YAML file of settings; options given beside it win.")
    parser.add_argument("--run", type=Path, help="Run folder; by default runs/ and the name of the experiment.")
    parser.add_argument("--resume", action="store_true", help="Go on with the run in the folder, if there is one.")
    add_settings(parser)


def fit(given: Given) -> None:
    """Train an experiment.

    Validation on all scenarios selects the best weights; nothing is computed on the test split.
    """
    path = Path(given["experiment"])
    own = {"experiment", "run", "resume"}
    overrides = flatten({name: value for name, value in given.items() if name not in own})
    experiment = read_experiment(path, overrides)
    folder = Path(given.get("run") or Path("runs") / path.stem)
    train_run(experiment, folder, resume=given.get("resume", False))
    say(f"Next: anysubset evaluate {folder} --split test")


def evaluate_options(parser: jsonargparse.ArgumentParser) -> None:
    """Of `evaluate`."""
    parser.add_argument("run", type=Path, help="Run folder.")
    parser.add_argument("--split", default="test", help="A name in the dataset's splits, or `all`.")
    parser.add_argument("--data.root", help="Samples of another place; by default those of the experiment.")
    parser.add_argument("--rates", type=float, nargs="+", help="Score random missing at these rates, too: 0.1 0.2 ...")
    parser.add_argument("--seed", type=int, default=0, help="Of what is missing at random, for every method the same.")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:N.")


def evaluate(given: Given) -> None:
    """Score all scenarios on a split: a table here, every number in the run's scores.csv."""
    from anysubset.data.features import Features
    from anysubset.report.table import scenario_table
    from anysubset.scores import means

    run, split = Path(given["run"]), given.get("split", "test")
    root = given.get("data", {}).get("root")
    rates, seed = given.get("rates", []), given.get("seed", 0)
    scores, drawn, dataset = score_run(run, split, root, device=given.get("device", "auto"), rates=rates, seed=seed)
    if isinstance(dataset, Features):
        show_feature_scores({run.name: scores}, dataset, split, str(run))
    else:
        show_volume_scores({run.name: means(scores, "dice")}, dataset, split, str(run))
        say(scenario_table({run.name: means(scores, "hd95")}, dataset.task.modalities, "HD95 in mm", scale=1.0))
    if drawn:
        show_random_missing(drawn, dataset.headline if isinstance(dataset, Features) else ())
        say(f"Each sample on what one draw leaves of it (seed {seed}, {run / 'holes'}); in no mean above.")
    say(f"Scores: {run / 'scores.csv'}")


def sweep_options(parser: jsonargparse.ArgumentParser) -> None:
    """Of `sweep`."""
    parser.add_argument("sweep", type=Path, help="YAML file: an experiment, and what is varied in it.")
    parser.add_argument("--output", type=Path, help="Folder of all runs; by default runs/ and the name of the file.")
    parser.add_argument("--data.root", type=Path, help="Folder in which the file's relative data.root are looked up.")
    parser.add_argument("--jobs", type=int, help="Runs at once, which share the cores; by default one a core, up to 4.")


def sweep(given: Given) -> int:
    """Train and score every combination that a file asks for, several at once: a table, and sweep.csv.

    What is done is skipped, and what was stopped goes on, when it is called again. Exit code 1 if a run failed.
    """
    import filelock

    from anysubset.sweep import check_folder, lacking, read_sweep, result_of, write_results

    path = Path(given["sweep"])
    output = Path(given.get("output") or Path("runs") / path.stem).resolve()
    root = given.get("data", {}).get("root")
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    jobs = given.get("jobs", min(cores, 4))
    if jobs < 1:
        raise InputError(f"--jobs must be at least 1, not {jobs}.")
    plan = read_sweep(path, output, None if root is None else Path(root))
    for run in plan.runs:
        check_folder(run)
    waiting = [run for run in plan.runs if lacking(run, plan.splits) != []]
    say(f"{output}: {len(plan.runs)} runs, {len(plan.runs) - len(waiting)} of them done")
    draw_holes(waiting)
    check_runs(waiting, plan.splits)
    output.mkdir(parents=True, exist_ok=True)
    try:
        with filelock.FileLock(output / ".lock", timeout=0):
            failed = train_all(waiting, plan.splits, jobs, max(1, cores // jobs))
            lines = [result_of(run, plan.splits) for run in plan.runs]
            write_results(output / "sweep.csv", lines)
    except filelock.Timeout:
        raise InputError(f"{output} is in use by another sweep.") from None
    except KeyboardInterrupt:
        say("interrupted; the same command goes on from the last checkpoints")
        return 130
    show_results(lines, plan.splits)
    say(f"Table: {output / 'sweep.csv'}")
    for name, fault in failed.items():
        say(f"failed: {name}: {fault}")
    return 1 if failed else 0


def draw_holes(runs: Sequence["Planned"]) -> None:
    """The files of holes that runs need and that are not there yet."""
    from anysubset.data import create_dataset
    from anysubset.data.holes import write_holes

    for run in runs:
        data, seed = run.experiment.data, run.holes.get("seed", 0)
        if not run.holes or data.holes is None or Path(data.holes).exists():
            continue
        dataset = create_dataset(replace(data, holes=None, complete_only=False), run.experiment.model)
        split = run.holes["split"]
        found = dict(zip(dataset.ids(split), dataset.present(split), strict=True))
        before = {sample: names for sample, names in found.items() if names}
        after, how = thinned(before, dataset.task.modalities, run.holes, seed)
        share = 1 - sum(map(len, after.values())) / sum(map(len, before.values()))
        Path(data.holes).parent.mkdir(parents=True, exist_ok=True)
        write_holes(Path(data.holes), after, {"how": how, "seed": seed, "split": split, "missing": round(share, 4)})
        say(f"Wrote {data.holes}: {how}; {share:.1%} of split {split!r} are taken away")


def check_runs(runs: Sequence["Planned"], splits: Sequence[str]) -> None:
    """What can be found wrong before anything is trained: data, splits, devices, and options of methods.

    Raises:
        InputError: with the name of the run.
    """
    from anysubset.data import create_dataset

    tasks: dict[str, Segmentation | Prediction] = {}  # Not the datasets, which may be large.
    for run in runs:
        experiment = run.experiment
        try:
            device_of(experiment.train.device)
            described = repr((experiment.data, experiment.model))
            if described not in tasks:
                dataset = create_dataset(experiment.data, experiment.model)
                dataset.check_modalities()
                for name in ("train", "val", *splits):
                    dataset.ids(name)
                tasks[described] = dataset.task
            new_method(experiment, tasks[described])
        except InputError as error:
            raise InputError(f"Run {run.name}: {error}") from None


def train_all(runs: Sequence["Planned"], splits: Sequence[str], jobs: int, threads: int) -> dict[str, str]:
    """Trains and scores runs, several at once; by name, why those failed that did."""
    from anysubset.children import Job, last_line, run_jobs
    from anysubset.scores import shown
    from anysubset.sweep import result_of

    works, names = {}, {run.name: run for run in runs}
    for run in runs:
        run.folder.mkdir(parents=True, exist_ok=True)
        works[run.name] = Job(train_and_score, (run, tuple(splits)), run.folder / "log.txt")
    failed = {}
    ends = run_jobs(works, jobs, threads, PRELOAD)
    for number, (name, code) in enumerate(track(ends, "Running", len(works)), start=1):
        if code:
            line = last_line(works[name].log)
            failed[name] = f"{f'killed by signal {-code}' if code < 0 else line} (see {works[name].log})"
            say(f"[{number}/{len(works)}] {name} failed: {failed[name]}")
        else:
            found = result_of(names[name], splits)
            chosen = shown(found["metric"], found["validation"])
            say(f"[{number}/{len(works)}] {name}: validation {chosen} at step {found['step']}")
    return failed


# What takes seconds to import, and what those import when they are used first.
PRELOAD = (
    *("anysubset.data", "anysubset.methods", "anysubset.train", "anysubset.evaluate", "anysubset.random_missing"),
    *("torch._dynamo", "sklearn.metrics", "sklearn.model_selection", "anysubset.report.table"),
)


def train_and_score(run: "Planned", splits: Sequence[str]) -> None:
    """One run of a sweep, in a process of its own: trained to its end, and scored where it is not yet."""
    from anysubset.sweep import lacking

    if lacking(run, splits) is None:
        train_run(run.experiment, run.folder, resume=True)
    for split in lacking(run, splits) or []:
        evaluate({"run": run.folder, "split": split, "device": run.experiment.train.device})


def predict_options(parser: jsonargparse.ArgumentParser) -> None:
    """Of `predict`."""
    parser.add_argument("run", type=Path, help="Run folder.")
    parser.add_argument("case", nargs="+", type=Path, help="Folder of one patient, or of several; or one table.")
    parser.add_argument("--output", type=Path, help="Folder for answers; by default `predictions` in the run folder.")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:N.")


def predict(given: Given) -> None:
    """Answer from whatever there is.

    For each patient a mask in the files' own grid; for a table of features a row for each sample.
    """
    run = Path(given["run"])
    folder = Path(given.get("output") or run / "predictions")
    opened = open_run(run, given.get("device", "auto"))
    cases = [Path(case) for case in given["case"]]
    if opened.signature is None:
        predict_masks(opened, cases, folder)
    elif len(cases) > 1:
        raise InputError(f"Give one table of features, not {len(cases)}; their answers would replace each other.")
    else:
        predict_answers(opened, cases[0], folder)


def predict_masks(opened: Opened, cases: Sequence[Path], folder: Path) -> None:
    """A mask and a JSON for each patient."""
    from anysubset.data.patients import find_patients
    from anysubset.predict import predict as predict_patient
    from anysubset.segmentation import Segmentation

    patients = [patient for case in cases for patient in find_patients(case)]
    for name, count in Counter(patient.id for patient in patients).items():
        if count > 1:
            raise InputError(f"{count} patients are called {name!r}; their masks would replace each other.")
    task = opened.task
    assert isinstance(task, Segmentation)
    folder.mkdir(parents=True, exist_ok=True)
    for patient in track(patients, "Predicting"):
        path = predict_patient(opened.method, task, patient, folder, opened.facts)
        say(f"{path}  from {', '.join(name for name in task.modalities if name in patient.sources)}")


def predict_answers(opened: Opened, table: Path, folder: Path) -> None:
    """One table of answers, and a JSON, for a table of features."""
    from anysubset.answers import answer
    from anysubset.data import create_dataset
    from anysubset.data.features import Features
    from anysubset.modalities import scenario_name

    experiment = opened.experiment.at(str(table))
    dataset = create_dataset(experiment.data, experiment.model, say, opened.signature, unlabelled=True)
    assert isinstance(dataset, Features)
    dataset.prepare("all")
    folder.mkdir(parents=True, exist_ok=True)
    path, used = answer(opened.method, dataset, folder, opened.facts)
    for scenario, count in used.items():
        say(f"{path}  {count} from {', '.join(scenario)}")
        if scenario_name(scenario) not in opened.facts["validation"]:
            say(f"note: no validation sample has {', '.join(scenario)}; nothing is known of these answers")


def compare_options(parser: jsonargparse.ArgumentParser) -> None:
    """Of `compare`."""
    parser.add_argument("run", nargs="+", type=Path, help="Run folders with scores, or folders of such runs.")
    parser.add_argument("--metric", help="By default dice, acc2, accuracy or mae, the first that there is.")
    parser.add_argument("--region", help="One region; by default the mean over all.")
    parser.add_argument("--reference", help="Method that the others are compared with.")
    parser.add_argument("--split", default="test", help="Split that was scored.")
    parser.add_argument("--groups", type=Path, help="CSV file with columns id and group: samples that hang together.")
    parser.add_argument("--paper", type=int, help="Number of a table of the paper, 1 to 5, in its layout.")
    parser.add_argument("--published", action="store_true", help="The paper's printed numbers beside ours.")
    parser.add_argument("--format", default="terminal", help="terminal, markdown or latex.")
    parser.add_argument("--output", type=Path, help="File to write; by default the terminal.")


def compare(given: Given) -> None:
    """Put methods and seeds side by side in every scenario.

    Means, intervals and tests against a reference, from the scores of runs alone.
    """
    from anysubset.files import whole
    from anysubset.report.grid import FORMATS
    from anysubset.report.paper import paper_grids
    from anysubset.report.results import find_runs, put_together, read_results
    from anysubset.report.side_by_side import grids

    output = Path(given["output"]) if given.get("output") else None
    form = given.get("format", "terminal")
    if form not in FORMATS:
        raise unknown("format", form, FORMATS)
    if output is not None and not output.parent.is_dir():
        raise InputError(f"{output} lies in a folder that is not there.")
    if given.get("published") and given.get("paper") is None:
        raise InputError("--published stands beside a table of the paper: add --paper 1 to 5.")
    folders, unscored = find_runs([Path(run) for run in given["run"]])
    for folder in unscored:
        print(f"anysubset: {folder} is left out: it has no scores yet", file=sys.stderr)
    results = [result for folder in folders for result in read_results(folder, given.get("split", "test"))]
    groups = put_together(results)
    if given.get("paper") is not None:
        found = paper_grids(given["paper"], groups, given.get("published", False))
    else:
        asked: Given = {name: given.get(name) for name in ("metric", "region", "reference", "groups")}
        found = [grid for group in groups for grid in grids(group, **asked)]
    text = "\n".join(FORMATS[form](grid) for grid in found)
    if output is None:
        say(text)
        return
    with whole(output) as temporary:
        temporary.write_text(text, encoding="utf-8")
    say(f"Wrote {output}")


def report_options(parser: jsonargparse.ArgumentParser) -> None:
    """Of `report`."""
    parser.add_argument("run", nargs="+", type=Path, help="Run folders with scores, or folders of such runs.")
    parser.add_argument("--output", type=Path, help="File to write; by default report.html in the one folder given.")
    parser.add_argument("--reference", help="Method that the others are compared with.")
    parser.add_argument("--metric", help="By default dice, acc2, accuracy or mae, the first that there is.")
    parser.add_argument("--region", help="One region; by default the mean over all.")
    parser.add_argument("--split", default="test", help="Split that was scored.")
    parser.add_argument("--images", action="store_true", help="Draw slices of volumes; needs the patients.")


def report(given: Given) -> None:
    """Put everything that runs tell on one page: scores, tests, conflict, protocol, cost.

    A single HTML file that needs no network; from the folders of runs alone, but for --images.
    """
    from anysubset.report.results import find_runs

    paths = [Path(run) for run in given["run"]]
    output = Path(given["output"]) if given.get("output") else paths[0] / "report.html"
    if len(paths) > 1 and not given.get("output"):
        raise InputError("Several folders were given: say with --output which file to write.")
    if not output.parent.is_dir():
        raise InputError(f"{output} lies in a folder that is not there.")
    folders, unscored = find_runs(paths)
    for folder in unscored:
        print(f"anysubset: {folder} is left out: it has no scores yet", file=sys.stderr)
    asked: Given = {name: given.get(name) for name in ("metric", "region", "reference")}
    write_page(folders, output, given.get("split", "test"), asked, given.get("images", False))
    say(f"Wrote {output}")


def diagnose_options(parser: jsonargparse.ArgumentParser) -> None:
    """Of `diagnose`."""
    parser.add_argument("run", type=Path, help="Run folder.")
    parser.add_argument("--split", default="val", help="Whose samples to look at: a name in the dataset's splits.")
    parser.add_argument("--batches", type=int, default=10, help="How many, drawn as in training.")
    parser.add_argument("--cases", default="all", help="all, missing=R or random=K: whose gradients are taken.")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:N.")


def diagnose(given: Given) -> None:
    """Show which cases conflict: gradients of the trained model, and what training logged.

    Nothing is trained; every number goes into the run's diagnosis.json.
    """
    import torch

    from anysubset.data import create_dataset
    from anysubset.data.features import Features
    from anysubset.diagnose import check_shared
    from anysubset.diagnose import diagnose as look
    from anysubset.files import whole
    from anysubset.modalities import case_sampler
    from anysubset.report.diagnostics import diagnosis, history_of

    run, split, batches = Path(given["run"]), given.get("split", "val"), given.get("batches", 10)
    if batches < 1:
        raise InputError(f"--batches must be at least 1, not {batches}.")
    opened = open_run(run, given.get("device", "auto"))
    check_shared(opened.method)
    experiment = opened.experiment
    sampler = case_sampler(opened.task.modalities, given.get("cases", "all"))
    dataset = create_dataset(experiment.data, experiment.model, say, opened.signature)
    if isinstance(dataset, Features):
        dataset.check_trained()
    ids, parts = dataset.ids(split), experiment.train.micro_batches
    drawn = dataset.training_batches(split, experiment.train.batch, experiment.seed, 0, batches, parts)
    grouped = ([next(drawn) for _ in range(parts)] for _ in range(batches))
    cases = sampler(torch.Generator().manual_seed(experiment.seed))
    seen = look(opened.method, track(grouped, "Looking", batches), cases)
    facts = {"run": run.name, "method": experiment.method["name"], "seed": experiment.seed, "split": split}
    found = {**facts, "step": opened.facts["step"], **diagnosis(run, history_of(seen.arrays()))}
    with whole(run / "diagnosis.json") as temporary:
        temporary.write_text(json.dumps(found, indent=1, allow_nan=False) + "\n", encoding="utf-8")
    show_diagnosis(found, f"{run}; split {split!r}, {len(ids)} {dataset.noun}, {batches} batches")
    say(f"Every number: {run / 'diagnosis.json'}")


def no_options(parser: jsonargparse.ArgumentParser) -> None:
    """Of a command that has none."""


def methods(given: Given) -> None:
    """List the methods and their options."""
    from anysubset.methods import METHODS, method_options

    table = Table("method", "what it is", "options")
    for name, method in METHODS.items():
        options = ", ".join(f"{option}={value}" for option, value in method_options(name).items())
        table.add_row(name, (sys.modules[method.__module__].__doc__ or "").splitlines()[0], options or "-")
    say(table)


def datasets(given: Given) -> None:
    """List the datasets that are known by name."""
    from anysubset.data import DATASETS
    from anysubset.data.features import FeatureSet

    table = Table("dataset", "modalities", "regions or range", "what it is")
    for name, known in DATASETS.items():
        if isinstance(known, FeatureSet):
            asked = "" if known.limits is None else f"{known.limits[0]:g} to {known.limits[1]:g}"
        else:
            asked = "  ".join(f"{region} {list(labels)}" for region, labels in known.regions)
        table.add_row(name, " ".join(known.modalities) or "-", asked or "-", known.summary)
    say(table)


def doctor(given: Given) -> None:
    """Say what this machine can do, and whether the mathematics gives the right numbers on it."""
    import torch

    from anysubset.gradients import by_index
    from anysubset.runs import environment

    table = Table("what", "found")
    for name, value in environment().items():
        if isinstance(value, dict):
            value = "  ".join(f"{package} {number}" for package, number in value.items())
        table.add_row(name, str(value) if value else "none")
    table.add_row("training on", str(device_of("auto")))
    rows = torch.tensor([[10.0, 0.0], [-0.6, 0.8]], dtype=torch.float64)
    weights = by_index(rows @ rows.T)
    # By hand: copies (6.4, 4.8) and (0, 0.8), so the sum is 1.06 g_1 + 7 g_2.
    right = torch.allclose(weights, torch.tensor([1.06, 7.0], dtype=torch.float64))
    table.add_row("GMD on a pair worked out by hand", "as it should be" if right else f"WRONG: {weights.tolist()}")
    say(table)
    if not right:
        raise RuntimeError("GMD gives wrong weights on this machine.")


COMMANDS: dict[str, tuple[Callable[[jsonargparse.ArgumentParser], None], Callable[[Given], int | None]]] = {
    "demo": (demo_options, demo),
    "inspect": (inspect_options, inspect),
    "convert": (convert_options, convert),
    "ampute": (ampute_options, ampute),
    "fit": (fit_options, fit),
    "evaluate": (evaluate_options, evaluate),
    "sweep": (sweep_options, sweep),
    "predict": (predict_options, predict),
    "compare": (compare_options, compare),
    "report": (report_options, report),
    "diagnose": (diagnose_options, diagnose),
    "methods": (no_options, methods),
    "datasets": (no_options, datasets),
    "doctor": (no_options, doctor),
}


# ---------------------------------------------------------------------------------------- what commands share


def check_free(output: Path) -> None:
    """Refuses to write where something is, or into a folder that is not there."""
    if output.exists() or not output.parent.is_dir():
        fault = "is there already; choose another name" if output.exists() else "lies in a folder that is not there"
        raise InputError(f"{output} {fault}.")


def train_run(experiment: Experiment, folder: Path, resume: bool) -> None:
    """Train into a run folder, and show the validation scores of the best weights."""
    import torch

    from anysubset import processes
    from anysubset.data import create_dataset
    from anysubset.runs import Run
    from anysubset.scores import shown
    from anysubset.train import train

    experiment = experiment.anchored()
    # What can be found wrong without reading a volume is found before the folder is made.
    device = device_of(experiment.train.device)
    processes.join(device.type)
    dataset = create_dataset(experiment.data, experiment.model, say)
    dataset.check_modalities()
    dataset.ids("train"), dataset.ids("val")
    torch.manual_seed(experiment.seed)
    generator = torch.Generator().manual_seed(experiment.seed)
    method = new_method(experiment, dataset.task, generator).to(device)
    parameters = sum(parameter.numel() for parameter in method.parameters())
    with Run(folder, experiment, resume) as run:
        say(f"{folder}: {experiment.method['name']}, {parameters:,} parameters, on {device}")
        show_support(dataset)
        done = train(method, dataset, run, show=track_steps, report=say)
    assert done.best is not None  # The last step is always validated.
    say(
        f"{folder}: {done.step} steps; validation {shown(dataset.selection[0], done.best)} at step {done.best_step}, "
        f"mean of {len(done.validation)} scenarios on {len(dataset.ids('val'))} {dataset.noun}"
    )
    if done.skipped:
        say(f"{done.skipped} steps were passed over: no sample of their batch was eligible for any case")


def new_method(experiment: Experiment, task: "Segmentation | Prediction", generator: Any = None) -> "Method":
    """The experiment's method, freshly initialised."""
    from anysubset.methods import create_method

    options = {name: value for name, value in experiment.method.items() if name != "name"}
    return create_method(experiment.method["name"], task, options, generator)


def open_run(folder: Path, device: str) -> Opened:
    """A trained run.

    Raises:
        InputError: if the folder is no run, or holds a checkpoint of another experiment.
    """
    from anysubset import checkpoint
    from anysubset.data import create_task, signature_in
    from anysubset.runs import best_of, check_same, features_of

    if not (folder / "experiment.yaml").is_file():
        raise InputError(f"{folder} is no run folder: it has no experiment.yaml. `anysubset fit` makes one.")
    experiment = read_experiment(folder / "experiment.yaml")
    tensors, facts = checkpoint.load(best_of(folder))
    check_same(experiment, facts["experiment"], best_of(folder))
    signature = signature_in(features_of(folder), experiment.data)
    task = create_task(experiment.data, experiment.model, signature)
    method = new_method(experiment, task)
    checkpoint.put(tensors, method, best_of(folder))
    return Opened(experiment, task, method.to(device_of(device)), facts, signature)


def score_run(
    folder: Path,
    split: str,
    root: str | None,
    *,
    distances: bool = True,
    device: str = "auto",
    rates: Sequence[float] = (),
    seed: int = 0,
) -> tuple[list["Score"], list["Score"], "Volumes | Features"]:
    """Score a run on a split, into its `scores.csv`: the scores of the scenarios, and those of random missing."""
    from anysubset import processes
    from anysubset.availability import write_availability
    from anysubset.data import create_dataset
    from anysubset.data.features import Features
    from anysubset.evaluate import evaluate as evaluate_method
    from anysubset.random_missing import draw_masks, under_masks, write_masks
    from anysubset.scores import write_scores

    processes.join(device_of(device).type)
    opened = open_run(folder, device)
    experiment = opened.experiment.at(root)
    dataset = create_dataset(experiment.data, experiment.model, say, opened.signature)
    if root is None and isinstance(dataset, Features):
        dataset.check_trained()
    masks = draw_masks(dataset, split, rates, seed)
    dataset.prepare(split)
    found = evaluate_method(
        opened.method,
        dataset,
        split,
        thorough=distances,
        progress=lambda samples: track_samples(samples, "Scoring", len(processes.share(dataset.ids(split)))),
    )
    facts = {
        "run": folder.name,
        "method": experiment.method["name"],
        "seed": experiment.seed,
        # Samples of another place must not replace the scores of the experiment's own.
        "dataset": experiment.data.name if root is None else str(Path(root).resolve()),
        "split": split,
    }
    drawn = under_masks(found, masks, dataset)
    if processes.rank() == 0:
        if root is None:
            write_availability(folder / "splits.json", dataset)
        write_masks(folder / "holes", masks, dataset, split, seed)
        write_scores(folder / "scores.csv", [*found, *drawn], dataset.task.modalities, facts)
    return found, drawn, dataset


def write_page(folders: Sequence[Path], output: Path, split: str, asked: Given, images: bool) -> None:
    """The report of runs.

    asked: `metric`, `region` and `reference`, or None for the usual ones. images: whether to draw slices of volumes.
    """
    from anysubset.files import whole
    from anysubset.report.page import page
    from anysubset.report.results import put_together, read_results

    groups = put_together([result for folder in folders for result in read_results(folder, split)])
    galleries = {group.first.dataset: gallery_of(group, split) for group in groups} if images else {}
    text = page(groups, galleries=galleries, **asked)
    with whole(output) as temporary:
        temporary.write_text(text, encoding="utf-8")


def gallery_of(group: "Together", split: str) -> "Gallery | str":
    """Slices of the runs of one dataset, from their patients; or why there are none."""
    from anysubset.data import create_dataset
    from anysubset.data.volumes import Volumes
    from anysubset.report.comparison import Comparison
    from anysubset.report.pictures import gallery, wanted
    from anysubset.slices import slices

    if "dice" not in group.first.metrics:
        return "These samples are no volumes."
    comparison = Comparison(group, "dice")
    chosen = wanted(comparison)
    if chosen is None:
        return "No patient has every contrast, so none can be shown in all of these scenarios."
    cuts = {}
    for method in chosen.methods:
        result = next(iter(group.results[method].values()))
        opened = open_run(result.folder, "auto")
        data = opened.experiment.data
        if not Path(data.root).exists():
            return f"The patients are not at hand: there is no {data.root}."
        dataset = create_dataset(data, opened.experiment.model)
        assert isinstance(dataset, Volumes)
        patients, some = [each for _, each in chosen.patients], [each for _, each in chosen.scenarios]
        for patient, scenario, cut in slices(opened.method, dataset, split, patients, some):
            cuts[method, patient, scenario] = cut
    return gallery(comparison, chosen, cuts)
