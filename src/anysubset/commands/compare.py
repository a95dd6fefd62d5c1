"""`anysubset compare`: methods and seeds side by side."""

from pathlib import Path

import jsonargparse

from anysubset import api
from anysubset.commands.options import Options
from anysubset.commands.outputs import check_beside
from anysubset.commands.terminal import complain, say
from anysubset.errors import InputError, unknown


def compare_options(parser: jsonargparse.ArgumentParser) -> None:
    """Add the options of `compare`."""
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


def compare(options: Options) -> None:
    """Put methods and seeds side by side in every scenario.

    Means, intervals and tests against a reference, computed from the scores of the runs.
    """
    from anysubset.paper.tables import paper_grids
    from anysubset.report.grid import FORMATS
    from anysubset.report.side_by_side import grids
    from anysubset.system.files import whole

    output = Path(options["output"]) if options.get("output") else None
    form = options.get("format", "terminal")
    if form not in FORMATS:
        raise unknown("format", form, FORMATS)
    if output is not None:
        check_beside(output)
    if options.get("published") and options.get("paper") is None:
        raise InputError("--published stands beside a table of the paper: add --paper 1 to 5.")
    if options.get("rate_by") and options.get("paper") is not None:
        raise InputError("--rate-by is for our own tables; the paper's have no such column: leave out --paper.")
    groups = api.scored_runs(options["run"], options.get("split", "test"), complain)
    if options.get("paper") is not None:
        tables = paper_grids(options["paper"], groups, options.get("published", False))
    else:
        choices: Options = {name: options.get(name) for name in ("metric", "region", "reference", "groups")}
        choices["rates"] = options.get("rate_by")
        tables = [table for group in groups for table in grids(group, **choices)]
    text = "\n".join(FORMATS[form](table) for table in tables)
    if output is None:
        say(text)
        return
    with whole(output) as temporary:
        temporary.write_text(text, encoding="utf-8")
    say(f"Wrote {output}")
