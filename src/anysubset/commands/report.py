"""`anysubset report`: one HTML page on runs."""

import jsonargparse

from anysubset import api
from anysubset.commands.options import Options, file_path
from anysubset.commands.terminal import complain, say


def report_options(parser: jsonargparse.ArgumentParser) -> None:
    """Add the options of `report`."""
    parser.add_argument("run", nargs="+", type=file_path, help="Run folders with scores, or folders of such runs.")
    parser.add_argument(
        "--output", type=file_path, help="File to write; by default report.html, if one folder is named."
    )
    parser.add_argument("--reference", help="Method that the others are compared with.")
    parser.add_argument("--metric", help="Metric; by default the first scored of dice, acc2, accuracy, mae.")
    parser.add_argument("--region", help="Region; by default the mean over all regions.")
    parser.add_argument("--split", default="test", help="Split whose scores are shown.")
    parser.add_argument("--images", action="store_true", help="Add slices of volumes; needs the patients.")


def report(options: Options) -> None:
    """Write one HTML page on runs: scores, statistical tests, conflict, contributions, protocol, cost.

    The page needs no network. It is made from the run folders alone, except for --images.
    """
    choices = {name: options.get(name) for name in ("output", "metric", "region", "reference")}
    split, images = options.get("split", "test"), options.get("images", False)
    output = api.write_report(options["run"], split=split, images=images, report=complain, **choices)
    say(f"Wrote {output}")
