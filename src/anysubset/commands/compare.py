"""`anysubset compare`: methods and seeds side by side."""

from pathlib import Path

import jsonargparse

from anysubset import api
from anysubset.commands.options import Options, file_path
from anysubset.commands.outputs import check_format, check_output, print_or_write
from anysubset.commands.terminal import complain
from anysubset.errors import InputError

WRITER = "anysubset compare"


def compare_options(parser: jsonargparse.ArgumentParser) -> None:
    """Add the options of `compare`."""
    parser.add_argument("run", nargs="+", type=file_path, help="Run folders with scores, or folders of such runs.")
    parser.add_argument("--metric", help="Metric; by default the first scored of dice, acc2, acc2_sims, accuracy, mae.")
    parser.add_argument("--region", help="Region; by default the mean over all regions.")
    parser.add_argument("--reference", help="Method that the others are compared with.")
    parser.add_argument("--split", default="test", help="Split whose scores are read.")
    parser.add_argument(
        "--groups",
        type=file_path,
        help="CSV file with the columns id and group, or JSON file, if samples are not independent, such as those of "
        "one video.",
    )
    parser.add_argument(
        "--rate-by",
        type=dict[str, float],
        help="Add the expected score if modalities are missing with these probabilities: --rate-by.t1ce 0.3",
    )
    parser.add_argument("--paper", type=int, help="Show the runs in the layout of this table of the paper, 1 to 5.")
    parser.add_argument("--published", action="store_true", help="With --paper, add the numbers printed in the paper.")
    parser.add_argument("--format", default="terminal", help="terminal, markdown or latex.")
    parser.add_argument("--output", type=file_path, help="File to write; by default the tables are printed.")


def compare(options: Options) -> None:
    """Compare methods in every scenario: means over seeds, intervals, and tests against a reference.

    Everything is computed from the scores of the runs.
    """
    from anysubset.datasets.groups import groups_in_file
    from anysubset.datasets.scans import scored_scans_note
    from anysubset.paper.tables import paper_grids
    from anysubset.report.side_by_side import grids

    output = Path(options["output"]) if options.get("output") else None
    file_format = options.get("format", "terminal")
    check_format(file_format)
    if output is not None:
        check_output(output, WRITER)
    if options.get("published") and options.get("paper") is None:
        raise InputError("--published needs a table of the paper: add --paper 1 to 5.")
    for name in ("metric", "region", "reference", "groups", "rate_by"):
        if options.get(name) and options.get("paper") is not None:
            option = f"--{name.replace('_', '-')}"
            raise InputError(f"The tables of the paper have their own layout, without {option}: leave out one of both.")
    groups_of_runs = api.scored_runs(options["run"], options.get("split", "test"), complain)
    if options.get("paper") is not None:
        from anysubset.methods.table import METHODS  # Only here, since it loads all networks.

        dedicated = [name for name, row in METHODS.items() if row.dedicated]
        tables = paper_grids(options["paper"], groups_of_runs, options.get("published", False), dedicated)
    else:
        choices: Options = {name: options.get(name) for name in ("metric", "region", "reference")}
        choices["rates"] = options.get("rate_by")
        tables = []
        for runs in groups_of_runs:
            groups = groups_in_file(runs.sample_ids, options["groups"], "--groups") if options.get("groups") else None
            scans = scored_scans_note(runs.sample_ids) if groups is None else None
            if scans is not None:
                complain(f"note: {scans}")
            tables += grids(runs, groups=groups, **choices)
    print_or_write(tables, file_format, output, WRITER)
