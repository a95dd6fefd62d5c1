"""`anysubset league`: methods ranked over several data sets."""

from pathlib import Path

import jsonargparse

from anysubset import api
from anysubset.commands.options import Options, file_path
from anysubset.commands.outputs import check_format, check_output, print_or_write
from anysubset.commands.terminal import complain, say
from anysubset.errors import InputError, unknown

WRITER = "anysubset league"


def league_options(parser: jsonargparse.ArgumentParser) -> None:
    """Add the options of `league`."""
    parser.add_argument("run", nargs="+", type=file_path, help="Run folders with scores, or folders of such runs.")
    parser.add_argument("--reference", help="Method that all others are compared with.")
    parser.add_argument("--split", default="test", help="Split whose scores are read.")
    parser.add_argument("--format", default="terminal", help="terminal, markdown or latex.")
    parser.add_argument("--output", type=file_path, help="File to write; by default the tables are printed.")
    parser.add_argument("--plot", type=file_path, help="SVG, PNG or PDF file to write, with a line of mean ranks.")


def league(options: Options) -> None:
    """Rank methods over several data sets: mean ranks, wins and losses against one method, scores and cost.

    Everything is computed from the scores of the runs. Ranks compare the methods that have scores on every data set.
    """
    from anysubset.report.league import league_grids, matches_of
    from anysubset.report.rank_plot import SUFFIXES, rank_plot
    from anysubset.system.files import atomic_write

    output, plot = (Path(options[name]) if options.get(name) else None for name in ("output", "plot"))
    file_format = options.get("format", "terminal")
    check_format(file_format)
    if plot is not None and plot.suffix not in SUFFIXES:
        raise unknown("kind of file for --plot", plot.suffix or plot.name, SUFFIXES)
    for path in (output, plot):
        if path is not None:
            check_output(path, WRITER)
    matches = matches_of(
        api.scored_runs(options["run"], options.get("split", "test"), complain), options.get("reference")
    )
    if plot is not None and len(matches) < 2:
        raise InputError(f"Ranks are of two data sets or more, and these runs are all of {matches[0].name}.")
    tables = league_grids(matches)
    if plot is not None:
        with atomic_write(plot, WRITER) as temporary:
            temporary.write_bytes(rank_plot(matches, plot.suffix))
        say(f"Wrote {plot}")
    print_or_write(tables, file_format, output, WRITER)
