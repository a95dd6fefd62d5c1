"""The command line: the only file that joins the others.

A command imports what it needs when it runs, so that `anysubset --help` loads neither torch nor MONAI.
"""

import json
import os
import re
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import jsonargparse
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from anysubset.errors import InputError, one_line, unknown
from anysubset.experiment import Experiment, add_settings, flatten, read_experiment

if TYPE_CHECKING:
    from anysubset.data.volumes import Volumes
    from anysubset.methods import Method
    from anysubset.report.table import Means
    from anysubset.scores import Score
    from anysubset.segmentation import Segmentation

Given = dict[str, Any]
Item = TypeVar("Item")

# Where nobody looks at a terminal, lines are as wide as the widest table needs.
console = Console(
    width=None if sys.stdout.isatty() or "COLUMNS" in os.environ else 100,
    highlight=False,
    quiet=os.environ.get("RANK", "0") != "0",  # Of the processes that `torchrun` starts, the first one speaks.
)


# ------------------------------------------------------------------------------------------------- the parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit code 0: success; 2: wrong input, told in one line; 130: interrupted; 1: a fault of the program."""
    try:
        parser, commands = make_parser()
        given = parse(parser, commands, list(sys.argv[1:] if arguments is None else arguments))
        name = given.pop("command")
        COMMANDS[name][1](given.get(name) or {})
    except InputError as error:
        print(f"anysubset: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("anysubset: interrupted; `fit --resume` goes on from the last checkpoint.", file=sys.stderr)
        return 130
    except BrokenPipeError:
        sys.stderr.close()
        return 1
    return 0


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
    parser.add_argument("--output", type=Path, default="runs/demo", help="Folder of the patients and the two runs.")
    parser.add_argument("--seed", type=int, default=0, help="Of the patients and of both runs.")
    parser.add_argument("--train.steps", type=int, help="Optimizer steps of each run.")


def demo(given: Given) -> None:
    """Make phantom patients, train on complete input and with GMD, and compare them in every scenario.

    Goes on where it was stopped when it is called again.
    """
    from anysubset.data.phantom import write_phantoms
    from anysubset.scores import means

    folder = Path(given.get("output", "runs/demo"))
    seed = given.get("seed", 0)
    patients = folder / "patients"
    if not patients.exists():
        say(f"Making phantom patients in {patients}: enhancing tumour shows almost only in t1ce")
        write_phantoms(patients, counts={"train": 24, "val": 4, "test": 12}, size=(48, 48, 32), seed=seed)
    tables: dict[str, Means] = {}
    for method in ("full", "gmd"):
        overrides: Given = {"seed": seed, "data.root": str(patients), "method.name": method}
        if given.get("train"):
            overrides["train.steps"] = given["train"]["steps"]
        experiment = read_experiment(Path(__file__).with_name("demo.yaml"), overrides)
        say()
        train_run(experiment, folder / method, resume=True)
        scores, dataset = score_run(folder / method, "test", None, distances=False)
        tables[method] = means(scores, "dice")
    show_scenarios(tables, dataset, "test", "training on complete input (full) against GMD")
    say(
        "full: trained as most are today, on complete input only. gmd: trained on every case, conflicts removed.\n"
        "Rows without t1ce: what happens when it goes missing.\n"
        f"Runs: {folder / 'full'} and {folder / 'gmd'}; patients: {patients}\n"
        f"Next: anysubset predict {folder / 'gmd'} {next(iter(dataset.patients.values())).sources['t1'].path.parent}"
    )


def inspect_options(parser: jsonargparse.ArgumentParser) -> None:
    """Of `inspect`."""
    parser.add_argument("path", type=Path, help="Folder of patients, one patient, Decathlon folder, or CSV manifest.")
    parser.add_argument("--json", action="store_true", help="Print the whole report as JSON.")
    parser.add_argument("--write", type=Path, help="Write a dataset file: the `data` section of an experiment.")


def inspect(given: Given) -> None:
    """Show what is there: patients, modalities, scenarios, shapes, labels, splits and faults."""
    from anysubset.data.inspection import inspect_volumes

    path = Path(given["path"])
    target = Path(given["write"]) if given.get("write") else None
    for file in [target, target.with_suffix(".splits.json")] if target is not None else []:
        if file.exists():
            raise InputError(f"{file} is there already; choose another name.")
    report = inspect_volumes(path)
    if given.get("json"):
        print(json.dumps(report, indent=2))
    else:
        show_inspection(report)
    if target is not None:
        write_dataset(report, path, target)


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
    parser.add_argument("--data.root", help="Patients of another place; by default those of the experiment.")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:N.")


def evaluate(given: Given) -> None:
    """Score all scenarios on a split: a table here, every number in the run's scores.csv."""
    from anysubset.report.table import scenario_table
    from anysubset.scores import means

    run, split = Path(given["run"]), given.get("split", "test")
    root = given.get("data", {}).get("root")
    scores, dataset = score_run(run, split, root, device=given.get("device", "auto"))
    show_scenarios({run.name: means(scores, "dice")}, dataset, split, str(run))
    say(scenario_table({run.name: means(scores, "hd95")}, dataset.task.modalities, "HD95 in mm", scale=1.0))
    say(f"Scores: {run / 'scores.csv'}")


def predict_options(parser: jsonargparse.ArgumentParser) -> None:
    """Of `predict`."""
    parser.add_argument("run", type=Path, help="Run folder.")
    parser.add_argument("case", nargs="+", type=Path, help="Folder of one patient, or of several.")
    parser.add_argument("--output", type=Path, help="Folder for masks; by default `predictions` in the run folder.")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:N.")


def predict(given: Given) -> None:
    """Write a mask for each patient from whatever files there are, in the files' own grid."""
    from anysubset.data.patients import find_patients
    from anysubset.predict import predict as predict_patient

    run = Path(given["run"])
    folder = Path(given.get("output") or run / "predictions")
    patients = [patient for case in given["case"] for patient in find_patients(Path(case))]
    for name, count in Counter(patient.id for patient in patients).items():
        if count > 1:
            raise InputError(f"{count} patients are called {name!r}; their masks would replace each other.")
    _, task, method, facts = open_run(run, given.get("device", "auto"))
    folder.mkdir(parents=True, exist_ok=True)
    for patient in track(patients, "Predicting"):
        path = predict_patient(method, task, patient, folder, facts)
        say(f"{path}  from {', '.join(name for name in task.modalities if name in patient.sources)}")


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

    table = Table("dataset", "modalities", "regions", "what it is")
    for name, known in DATASETS.items():
        regions = "  ".join(f"{region} {list(labels)}" for region, labels in known.regions)
        table.add_row(name, " ".join(known.modalities) or "-", regions or "-", known.summary)
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


COMMANDS: dict[str, tuple[Callable[[jsonargparse.ArgumentParser], None], Callable[[Given], None]]] = {
    "demo": (demo_options, demo),
    "inspect": (inspect_options, inspect),
    "fit": (fit_options, fit),
    "evaluate": (evaluate_options, evaluate),
    "predict": (predict_options, predict),
    "methods": (no_options, methods),
    "datasets": (no_options, datasets),
    "doctor": (no_options, doctor),
}


# ---------------------------------------------------------------------------------------- what commands share


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
        complete = dataset.present("train").count(dataset.task.modalities)
        say(f"{complete} of {len(dataset.ids('train'))} training patients have every modality")
        done = train(method, dataset, run, show=track_steps, report=say)
    assert done.best is not None  # The last step is always validated.
    say(
        f"{folder}: {done.step} steps; validation {shown(dataset.selection[0], done.best)} at step {done.best_step}, "
        f"mean of {len(done.validation)} scenarios on {len(dataset.ids('val'))} patients"
    )
    if done.skipped:
        say(f"{done.skipped} steps were passed over: no sample of their batch was eligible for any case")


def new_method(experiment: Experiment, task: "Segmentation", generator: Any = None) -> "Method":
    """The experiment's method, freshly initialised."""
    from anysubset.methods import create_method

    options = {name: value for name, value in experiment.method.items() if name != "name"}
    return create_method(experiment.method["name"], task, options, generator)


def open_run(folder: Path, device: str) -> tuple[Experiment, "Segmentation", "Method", Given]:
    """A trained run: its experiment, task, method with the best weights, and the facts of that checkpoint.

    Raises:
        InputError: if the folder is no run, or holds a checkpoint of another experiment.
    """
    from anysubset import checkpoint
    from anysubset.data import create_task
    from anysubset.runs import best_of, check_same

    if not (folder / "experiment.yaml").is_file():
        raise InputError(f"{folder} is no run folder: it has no experiment.yaml. `anysubset fit` makes one.")
    experiment = read_experiment(folder / "experiment.yaml")
    tensors, facts = checkpoint.load(best_of(folder))
    check_same(experiment, facts["experiment"], best_of(folder))
    task = create_task(experiment.data, experiment.model)
    method = new_method(experiment, task)
    checkpoint.put(tensors, method, best_of(folder))
    return experiment, task, method.to(device_of(device)), facts


def score_run(
    folder: Path, split: str, root: str | None, *, distances: bool = True, device: str = "auto"
) -> tuple[list["Score"], "Volumes"]:
    """Score a run on a split, into its `scores.csv`."""
    from anysubset import processes
    from anysubset.data import create_dataset
    from anysubset.evaluate import evaluate as evaluate_method
    from anysubset.scores import write_scores

    processes.join(device_of(device).type)
    experiment, _, method, _ = open_run(folder, device)
    experiment = experiment.at(root)
    dataset = create_dataset(experiment.data, experiment.model, say)
    dataset.prepare(split)
    found = evaluate_method(
        method,
        dataset,
        split,
        thorough=distances,
        progress=lambda samples: track(samples, "Scoring", len(processes.share(dataset.ids(split)))),
    )
    facts = {
        "run": folder.name,
        "method": experiment.method["name"],
        "seed": experiment.seed,
        # Patients of another place must not replace the scores of the experiment's own.
        "dataset": experiment.data.name if root is None else str(Path(root).resolve()),
        "split": split,
    }
    if processes.rank() == 0:
        write_scores(folder / "scores.csv", found, dataset.task.modalities, facts)
    return found, dataset


def device_of(name: str) -> Any:
    """The device that a setting means.

    Raises:
        InputError: if it is not there.
    """
    import torch

    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        torch.empty(0, device=name)
    except (RuntimeError, AssertionError) as error:
        raise InputError(f"Device {name!r} is not there: {str(error).splitlines()[0]}") from error
    return torch.device(name)


# ----------------------------------------------------------------------------------------- on the terminal


def say(line: Any = "") -> None:
    """A line or a table; lines are never broken, so that a path can be copied."""
    console.print(line, soft_wrap=isinstance(line, str))


def show_scenarios(tables: dict[str, "Means"], dataset: "Volumes", split: str, title: str) -> None:
    """The scenario table, and the protocol that it stands under."""
    from anysubset.report.table import scenario_table

    patients = len(dataset.ids(split))
    title = f"Dice in %, {title}; split {split!r}, {patients} patients"
    say()
    say(scenario_table(tables, dataset.task.modalities, title))
    say(
        "Hard Dice per patient on whole volumes, then the mean; both empty 1, one empty 0. Weights chosen on "
        f"validation. Split {dataset.split_hash(split)}."
    )


def show_inspection(report: Given) -> None:
    """What `inspect_volumes` found, as tables."""
    total = report["patients"]
    say(f"{report['root']}: {total} patients, {report['labelled']} with a label")
    table = Table("modality", "patients", "missing")
    for name, count in report["modalities"].items():
        table.add_row(name, str(count), str(total - count) if count < total else "")
    say(table)
    table = Table("scenario", "patients")
    for name, count in report["scenarios"].items():
        table.add_row(name, str(count))
    say(table)
    for label, key in (
        ("shapes", "shapes"),
        ("spacings in mm", "spacings"),
        ("orientations", "orientations"),
        ("voxels by label", "labels"),
        ("splits", "splits"),
    ):
        found = [f"{name}: {count}" for name, count in report[key].items()]
        more = f", and {len(found) - 8} more" if len(found) > 8 else ""
        say(f"{label}: {', '.join(found[:8]) or 'none'}{more}")
    for patient, names in report["missing"].items():
        say(f"missing: {patient} has no {', '.join(names)}")
    for note in report["notes"]:
        say(f"note: {note}")
    for lines in report["faults"].values():
        for line in lines:
            say(f"fault: {line}")
    for line in report["split_faults"]:
        say(f"fault: {line}")


def track(items: Iterable[Item], label: str, total: int | None = None) -> Iterable[Item]:
    """A progress bar on a terminal; elsewhere nothing."""
    if not console.is_terminal:
        yield from items
        return
    with progress_bar() as bar:
        yield from bar.track(items, total=total, description=label)


def track_steps(steps: Iterable[int], done: int) -> Iterable[int]:
    """A progress bar of the training on a terminal; elsewhere a line every tenth of the way."""
    steps = list(steps)
    total = done + len(steps)
    if console.is_terminal:
        with progress_bar() as bar:
            task = bar.add_task("Training", total=total, completed=done)
            for step in steps:
                yield step
                bar.update(task, completed=step)
        return
    for step in steps:
        yield step
        if step % max(1, total // 10) == 0:
            say(f"step {step} of {total}")


def progress_bar() -> Progress:
    """The look of all bars."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    return Progress(*columns, console=console, transient=True)
