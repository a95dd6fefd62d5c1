"""`anysubset inspect`: describe data before training."""

import json
from collections.abc import Sequence
from pathlib import Path

import jsonargparse

from anysubset import api
from anysubset.commands.data_tables import show_table, show_volumes
from anysubset.commands.options import Options, file_path
from anysubset.commands.terminal import remark, say_text
from anysubset.errors import InputError
from anysubset.experiments.data_settings import ReadingSettings
from anysubset.system.files import atomic_write
from anysubset.system.written import check_free


def inspect_options(parser: jsonargparse.ArgumentParser) -> None:
    """Add the options of `inspect`."""
    parser.add_argument(
        "path",
        type=file_path,
        help="Folder of patients, one patient, Decathlon folder, or CSV manifest; or a table.",
    )
    parser.add_class_arguments(ReadingSettings, "reading")
    parser.add_argument(
        "--group",
        help="Setting data.group of samples that belong together: a regular expression with one group, which takes the "
        "patient or video from an id, a CSV or JSON file, or the column of a table. Splits that are drawn keep groups "
        "whole.",
    )
    parser.add_argument("--json", action="store_true", help="Print the whole report as JSON.")
    parser.add_argument("--write", type=file_path, help="Write a YAML data file, for `fit` together with a recipe.")


def inspect(options: Options) -> None:
    """Describe data: samples, modalities, scenarios, shapes, labels, splits and faults."""
    path, reading, group = Path(options["path"]), options.get("reading", {}), options.get("group")
    target = Path(options["write"]) if options.get("write") else None
    if target is not None:
        check_free(target)
    try:
        report = api.inspect(path, reading=reading, group=group)
    except InputError as error:
        raise InputError(with_own_options(str(error))) from None
    if isinstance(report["faults"], list):  # Of a table.
        report["faults"] = [with_own_options(line) for line in report["faults"]]
    is_table = "samples" in report
    if options.get("json"):
        say_text(json.dumps(report, indent=2))
    elif is_table:
        show_table(report)
    else:
        show_volumes(report)
    if target is not None and is_table:
        write_table_file(report, path, reading, target, group)
    elif target is not None:
        write_volumes_file(report, path, target, group)


def with_own_options(line: str) -> str:
    """A line of a reader, with the options of `inspect` in place of those of `fit`, such as `--data.reading.kind`."""
    return line.replace("--data.reading.", "--reading.")


def write_table_file(report: Options, path: Path, reading: Options, target: Path, group: str | None = None) -> None:
    """Write the data file of a table, with folds if the table has no splits."""
    datasets = report["datasets"]
    name = datasets[0] if len(datasets) == 1 else "table"
    settings: Options = {"name": name, "root": str(path), "modalities": list(report["modalities"])}
    if name != "table":
        remark(
            f"By its layout and widths the table is {name}: data.name {name} adds Acc-2, F1 and Acc-7 to the metrics"
        )
    elif datasets:
        choices = " or ".join(datasets)
        remark(f"The table may be {choices}: data.name {choices} in {target} adds Acc-2, F1 and Acc-7 to the metrics")
    if "train" not in report["splits"]:
        settings["folds"] = 5
        remark("The table has no split 'train': five folds are drawn, the first one is the test split")
    if group is not None:
        settings["group"] = group
    if reading:
        settings["reading"] = reading
    write_settings({"data": settings}, target, "experiments/recipes/gmd_small_tables.yaml")


def write_volumes_file(report: Options, path: Path, target: Path, group: str | None = None) -> None:
    """Write the data file of a folder of patients, and splits beside it if the folder has none."""
    from anysubset.volumes.inspection import dataset_file, drawn_splits

    settings = dataset_file(report, path, group)
    if not settings["data"]["regions"]:
        remark("No label could be read, so data.regions is empty: name the regions before `anysubset fit`")
    if not report["splits"]:
        splits = target.with_suffix(".splits.json")
        text = json.dumps(drawn_splits(report, path, group), indent=1) + "\n"
        # The same command, killed after it wrote the splits, must be able to go on.
        if not splits.is_file() or splits.read_bytes() != text.encode():
            check_free(splits)
            with atomic_write(splits) as temporary:
                temporary.write_text(text, encoding="utf-8")
        settings["data"]["splits"] = str(splits)
        remark(f"Wrote {splits}: the patients have no splits, so these were drawn")
    comments = [f"regions: {report['regions_from']}"] if report["regions_from"] else []
    write_settings(settings, target, "experiments/recipes/gmd_common.yaml", [*comments, *report["notes"]])


def write_settings(settings: Options, target: Path, recipe: str, comments: Sequence[str] = ()) -> None:
    """Write a data file with comments above the settings, and name a recipe to train with."""
    import yaml

    above = "".join(f"# {comment}\n" for comment in comments)
    with atomic_write(target) as temporary:
        temporary.write_text(above + yaml.safe_dump(settings, sort_keys=False), encoding="utf-8")
    remark(f"Wrote {target}. Next: anysubset fit {target} {recipe} --run FOLDER")
