"""`anysubset report`: one page on runs."""

from pathlib import Path

import jsonargparse

from anysubset import api
from anysubset.commands.options import Options
from anysubset.commands.terminal import complain, say


def report_options(parser: jsonargparse.ArgumentParser) -> None:
    """Add the options of `report`."""
    parser.add_argument("run", nargs="+", type=Path, help="Run folders with scores, or folders of such runs.")
    parser.add_argument("--output", type=Path, help="File to write; by default report.html in the one folder options.")
    parser.add_argument("--reference", help="Method that the others are compared with.")
    parser.add_argument("--metric", help="By default dice, acc2, accuracy or mae, the first that there is.")
    parser.add_argument("--region", help="One region; by default the mean over all.")
    parser.add_argument("--split", default="test", help="Split that was scored.")
    parser.add_argument("--images", action="store_true", help="Draw slices of volumes; needs the patients.")


def report(options: Options) -> None:
    """Put everything that is recorded of runs on one page: scores, tests, conflict, protocol, cost.

    A single HTML file that needs no network; made from run folders alone, but for --images.
    """
    choices = {name: options.get(name) for name in ("output", "metric", "region", "reference")}
    split, images = options.get("split", "test"), options.get("images", False)
    output = api.write_report(options["run"], split=split, images=images, report=complain, **choices)
    say(f"Wrote {output}")
