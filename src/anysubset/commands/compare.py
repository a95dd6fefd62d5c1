"""`anysubset compare`: methods and seeds side by side."""

from pathlib import Path

import jsonargparse

from anysubset import api
from anysubset.commands.given import Given
from anysubset.commands.outputs import check_beside
from anysubset.commands.terminal import complain, say
from anysubset.errors import InputError, unknown


def compare_options(parser: jsonargparse.ArgumentParser) -> None:
    """The options of `compare`."""
    parser.add_argument("run", nargs="+", type=Path, help="Run folders with scores, or folders of such runs.")
    parser.add_argument("--metric", help="By default dice, acc2, accuracy or mae, the first that there is.")
    parser.add_argument("--region", help="One region; by default the mean over all.")
    parser.add_argument("--reference", help="Method that the others are compared with.")
    parser.add_argument("--split", default="test", help="Split that was scored.")
    parser.add_argument(
        "--groups",
        type=Path,
        help="CSV file with columns id and group: samples that are not independent, such as those of one video.",
    )
    parser.add_argument(
        "--rate-by",
        type=dict[str, float],
        help="Expected score if modalities are missing with these probabilities: --rate-by.t1ce 0.3",
    )
    parser.add_argument("--paper", type=int, help="Number of a table of the paper, 1 to 5, in its layout.")
    parser.add_argument("--published", action="store_true", help="The paper's printed numbers beside ours.")
    parser.add_argument("--format", default="terminal", help="terminal, markdown or latex.")
    parser.add_argument("--output", type=Path, help="File to write; by default the terminal.")


def compare(given: Given) -> None:
    """Put methods and seeds side by side in every scenario.

    Means, intervals and tests against a reference, from the scores of runs alone.
    """
    from anysubset.paper.tables import paper_grids
    from anysubset.report.grid import FORMATS
    from anysubset.report.side_by_side import grids
    from anysubset.system.files import whole

    output = Path(given["output"]) if given.get("output") else None
    form = given.get("format", "terminal")
    if form not in FORMATS:
        raise unknown("format", form, FORMATS)
    if output is not None:
        check_beside(output)
    if given.get("published") and given.get("paper") is None:
        raise InputError("--published stands beside a table of the paper: add --paper 1 to 5.")
    if given.get("rate_by") and given.get("paper") is not None:
        raise InputError("--rate-by is for our own tables; the paper's have no such column: leave out --paper.")
    groups = api.scored_runs(given["run"], given.get("split", "test"), complain)
    if given.get("paper") is not None:
        found = paper_grids(given["paper"], groups, given.get("published", False))
    else:
        asked: Given = {name: given.get(name) for name in ("metric", "region", "reference", "groups")}
        asked["rates"] = given.get("rate_by")
        found = [grid for group in groups for grid in grids(group, **asked)]
    text = "\n".join(FORMATS[form](grid) for grid in found)
    if output is None:
        say(text)
        return
    with whole(output) as temporary:
        temporary.write_text(text, encoding="utf-8")
    say(f"Wrote {output}")
