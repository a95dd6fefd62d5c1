"""`anysubset predict`: predict from the modalities that are present."""

import jsonargparse

from anysubset import api
from anysubset.commands.options import Options, file_path
from anysubset.commands.progress import track
from anysubset.commands.terminal import say


def predict_options(parser: jsonargparse.ArgumentParser) -> None:
    """Add the options of `predict`."""
    parser.add_argument("run", type=file_path, help="Run folder.")
    parser.add_argument("path", nargs="+", type=file_path, help="Folder of one or of several patients, or a table.")
    parser.add_argument("--output", type=file_path, help="Output folder; by default `predictions` in the run folder.")
    parser.add_argument("--overwrite", action="store_true", help="Replace predictions of another run; no other files.")
    parser.add_argument(
        "--coverage", type=float, help="Of a table, add sets or intervals that hold this share of the targets: 0.9."
    )
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:N.")


def predict(options: Options) -> None:
    """Predict from the modalities that are present.

    Writes a mask in the grid of its files for each patient, or a row for each sample of a table.
    """
    api.predict(
        options["run"],
        options["path"],
        output=options.get("output"),
        overwrite=options.get("overwrite", False),
        coverage=options.get("coverage"),
        device=options.get("device", "auto"),
        report=say,
        progress=track,
    )
