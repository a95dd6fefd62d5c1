"""Runs with scores, put together: what `compare` and `report` begin with."""

import sys
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from anysubset.report.results import Together


def scored_runs(paths: Iterable[Path], split: str) -> list["Together"]:
    """The scores on a split of run folders, given themselves or anywhere below a folder; says which have none yet.

    Raises:
        InputError: if there is no run with scores on that split, or two cannot stand in one table.
    """
    from anysubset.report.results import find_runs, put_together, read_results

    folders, unscored = find_runs(paths)
    for folder in unscored:
        print(f"anysubset: {folder} is left out: it has no scores yet", file=sys.stderr)
    return put_together(result for folder in folders for result in read_results(folder, split))
