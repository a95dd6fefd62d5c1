"""`anysubset inspect`: what there is."""

import json
import sys
from pathlib import Path

import jsonargparse

from anysubset import api
from anysubset.commands.data_tables import show_table, show_volumes
from anysubset.commands.given import Given
from anysubset.commands.outputs import check_free
from anysubset.experiments.settings import ReadingSettings


def inspect_options(parser: jsonargparse.ArgumentParser) -> None:
    """The options of `inspect`."""
    parser.add_argument(
        "path",
        type=Path,
        help="Folder of patients, one patient, Decathlon folder, or CSV manifest; or a table.",
    )
    parser.add_class_arguments(ReadingSettings, "reading")
    parser.add_argument(
        "--group",
        help="Setting data.group of patients with several scans: a regular expression with one group, which takes the "
        "patient from a scan's id, or a CSV or JSON file. Splits that are drawn keep a patient's scans together.",
    )
    parser.add_argument("--json", action="store_true", help="Print the whole report as JSON.")
    parser.add_argument("--write", type=Path, help="Write a dataset file: the `data` section of an experiment.")


def inspect(given: Given) -> None:
    """Show what is there: samples, modalities, scenarios, shapes, labels, splits and faults."""
    path, reading, group = Path(given["path"]), given.get("reading", {}), given.get("group")
    target = Path(given["write"]) if given.get("write") else None
    for file in [target, target.with_suffix(".splits.json")] if target is not None else []:
        check_free(file)
    report = api.inspect(path, reading=reading, group=group)
    is_table = "samples" in report
    if given.get("json"):
        print(json.dumps(report, indent=2))
    elif is_table:
        show_table(report)
    else:
        show_volumes(report)
    if target is not None and is_table:
        write_table_experiment(report, path, reading, target)
    elif target is not None:
        write_dataset(report, path, target, group)


def write_table_experiment(report: Given, path: Path, reading: Given, target: Path) -> None:
    """An experiment on a table, with folds where its file has no splits, and a training that suits small tables.

    The defaults of `train` are for volumes.
    """
    import yaml

    train = {"steps": 500, "batch": 64, "optimizer": "adamw", "lr": 1e-3, "weight_decay": 1e-2, "schedule": "cosine"}
    train |= {"warmup": 20, "clip": 1.0, "validate_every": 25}

    settings: Given = {"name": "table", "root": str(path), "modalities": list(report["modalities"])}
    if "train" not in report["splits"]:
        settings["folds"] = 5
        print("The file has no split 'train': folds are drawn, the first of five is the test", file=sys.stderr)
    if reading:
        settings["reading"] = reading
    target.write_text(yaml.safe_dump({"data": settings, "train": train}, sort_keys=False), encoding="utf-8")
    print(f"Wrote {target}", file=sys.stderr)


def write_dataset(report: Given, path: Path, target: Path, group: str | None = None) -> None:
    """The `data` section of an experiment; with splits drawn for it, where none lie beside the patients."""
    import yaml

    from anysubset.volumes.inspection import dataset_file, drawn_splits

    settings = dataset_file(report, path, group)
    if not report["splits"]:
        splits = target.with_suffix(".splits.json")
        splits.write_text(json.dumps(drawn_splits(report, path, group), indent=1) + "\n", encoding="utf-8")
        settings["data"]["splits"] = str(splits)
        print(f"Wrote {splits}: no splits lie beside the patients, so these were drawn", file=sys.stderr)
    target.write_text(yaml.safe_dump(settings, sort_keys=False), encoding="utf-8")
    print(f"Wrote {target}", file=sys.stderr)
