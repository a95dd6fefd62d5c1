"""`anysubset predict`: predict from whichever modalities there are."""

from pathlib import Path

import jsonargparse

from anysubset import api
from anysubset.commands.options import Options
from anysubset.commands.progress import track
from anysubset.commands.terminal import say


def predict_options(parser: jsonargparse.ArgumentParser) -> None:
    """Add the options of `predict`."""
    parser.add_argument("run", type=Path, help="Run folder.")
    parser.add_argument("path", nargs="+", type=Path, help="Folder of one patient, or of several; or one table.")
    parser.add_argument("--output", type=Path, help="Folder to write; by default `predictions` in the run folder.")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:N.")


def predict(options: Options) -> None:
    """Predict from whichever modalities there are.

    For each patient a mask in the grid of its files; for a table a row for each sample.
    """
    api.predict(
        options["run"],
        options["path"],
        output=options.get("output"),
        device=options.get("device", "auto"),
        report=say,
        progress=track,
    )
