"""`summary.csv` beside the masks: one row for each patient, and the same in short for the terminal."""

import csv
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from anysubset.evaluation.expected_dice import ExpectedDice
from anysubset.scoring.statistics import Interval
from anysubset.system.files import atomic_write
from anysubset.system.input_files import read_cells

SUMMARY = "summary.csv"
Row = dict[str, str]


def columns_of(regions: Sequence[str]) -> list[str]:
    """Names of the columns for the regions of a task."""
    expected = ["expected_dice", *(f"expected_dice_{region}" for region in regions)]
    return [
        *("id", "used", "missing"),
        *(f"volume_ml_{region}" for region in regions),
        *(f"{name}{end}" for name in expected for end in ("", "_low", "_high")),
        *("expected_dice_n", "compared_with_training_set", "warnings", "error"),
    ]


def row_of(facts: Mapping[str, Any], expected: ExpectedDice | None) -> Row:
    """Row of a predicted patient.

    Args:
        facts: content of its JSON file.
        expected: the Dice to expect, from 0 to 1; None if it is unknown, which leaves the cells empty.
    """
    row = {
        "id": str(facts["patient"]),
        "used": "+".join(facts["used"]),
        "missing": "+".join(facts["missing"]),
        **{f"volume_ml_{region}": f"{volume:g}" for region, volume in facts["volume_ml"].items()},
        "compared_with_training_set": "yes" if facts["compared_with_training_set"] else "no",
        "warnings": "; ".join(facts["warnings"]),
    }
    if expected is None:
        return row
    intervals = {"expected_dice": expected.mean}
    intervals |= {f"expected_dice_{region}": interval for region, interval in expected.regions.items()}
    return {**row, **cells(intervals), "expected_dice_n": str(expected.n)}


def cells(intervals: Mapping[str, Interval]) -> Row:
    """Cells of mean, lower and upper limit; empty for NaN."""
    return {
        f"{name}{end}": "" if math.isnan(value) else f"{value:.4f}"
        for name, interval in intervals.items()
        for end, value in zip(("", "_low", "_high"), interval, strict=True)
    }


def failed_row(patient_id: str, fault: str) -> Row:
    """Row of a patient that failed, with the reason."""
    return {"id": patient_id, "error": fault}


def earlier_rows(path: Path, columns: Sequence[str]) -> list[Row]:
    """Rows of a summary; none if it does not exist, or is one of other regions."""
    if not path.exists():
        return []
    head, *rows = read_cells(path) or [[]]
    return [dict(zip(head, row, strict=True)) for row in rows if len(row) == len(head)] if head == [*columns] else []


def write_summary(path: Path, columns: Sequence[str], rows: Iterable[Row], writer: str) -> None:
    """Write the summary, sorted by id. writer: the command, recorded beside it."""
    with atomic_write(path, writer) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        sheet = csv.DictWriter(file, columns, restval="")
        sheet.writeheader()
        sheet.writerows(sorted(rows, key=lambda row: row["id"]))


def lines_on(mask: Path, facts: Mapping[str, Any], expected: ExpectedDice | None) -> list[str]:
    """Lines for the terminal: what the mask was predicted from, its expected Dice, volumes, and the warnings."""
    parts = [f"from {', '.join(facts['used'])}"]
    if facts["missing"]:
        parts.append(f"missing {', '.join(facts['missing'])}")
    if expected is not None:
        mean, low, high = (100 * value for value in expected.mean)
        limits = "" if math.isnan(low) else f", 95 % {low:.1f} to {high:.1f}"
        parts.append(f"expected Dice {mean:.1f} (n = {expected.n}{limits})")
    parts.append(", ".join(f"{region} {volume:g} ml" for region, volume in facts["volume_ml"].items()))
    return [f"{mask}  {'; '.join(parts)}", *(f"  warning: {line}" for line in facts["warnings"])]
