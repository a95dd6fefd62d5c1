"""Copy the runs of a sweep without weights and names of places, so that a table can be computed again from its scores.

    python benchmarks/publish.py runs/comparison_lgg results/comparison_lgg
    anysubset league results/comparison_lgg

Of each run with scores, these files are copied: `experiment.yaml`, with the last part of every path; `cost.json`, with
the number of parameters; and `scores.csv`, with the rows of `METRICS`, six digits and no hash. Existing copies of other
runs stay, so that seeds which were trained one after the other end in one folder.
"""

import csv
import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from anysubset.report.reading import find_runs
from anysubset.system.files import atomic_write
from anysubset.system.run_files import COST, read_object
from anysubset.system.run_folder import RunFolder, parameters_in
from anysubset.system.yaml_file import read_yaml

METRICS = ("dice", "nll", "ece")  # Those of `anysubset league`.


def publish(source: Path, output: Path) -> int:
    """Copy all scored runs of a sweep into a folder, and return their number.

    Args:
        source: folder of the sweep.
        output: folder of the copies, at the same relative paths.
    """
    runs, _ = find_runs([source])
    for folder in runs:
        run, copy = RunFolder(folder), RunFolder(output / folder.relative_to(source))
        copy.path.mkdir(parents=True, exist_ok=True)
        settings = without_places(read_yaml(run.experiment))
        with atomic_write(copy.experiment) as temporary:
            temporary.write_text(yaml.safe_dump(settings, sort_keys=False), encoding="utf-8")
        cost = read_object(run.cost, COST) | {"parameters": parameters_in(run.best)}
        with atomic_write(copy.cost) as temporary:
            temporary.write_text(json.dumps(cost) + "\n", encoding="utf-8")
        with (
            run.scores.open(newline="", encoding="utf-8") as rows,
            atomic_write(copy.scores) as temporary,
            temporary.open("w", newline="", encoding="utf-8") as file,
        ):
            reader = csv.DictReader(rows)
            writer = csv.DictWriter(file, reader.fieldnames or [], lineterminator="\n")
            writer.writeheader()
            writer.writerows(published(row) for row in reader if row["metric"] in METRICS)
    return len(runs)


def without_places(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Settings in which the paths of the data are their last parts."""
    data = dict(settings["data"])
    for name in ("root", "splits", "missingness"):
        if data[name]:
            data[name] = Path(data[name]).name
    return {**settings, "data": data}


def published(row: Mapping[str, str]) -> dict[str, str]:
    """A row of scores with six digits, and without the hashes of weights and data, which are not copied."""
    return {**row, "weights": "", "data": "", "value": f"{float(row['value']):.6g}"}


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit("usage: python benchmarks/publish.py SWEEP OUTPUT")
    print(f"{publish(Path(sys.argv[1]), Path(sys.argv[2]))} runs in {sys.argv[2]}")
