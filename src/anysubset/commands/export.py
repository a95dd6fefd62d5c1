"""`anysubset export`: one file with a trained model, to hand it over."""

import jsonargparse

from anysubset import api
from anysubset.commands.options import Options, file_path
from anysubset.commands.terminal import say
from anysubset.errors import InputError


def export_options(parser: jsonargparse.ArgumentParser) -> None:
    """Add the options of `export`."""
    parser.add_argument("run", type=file_path, help="Run folder of a finished training.")
    parser.add_argument("--output", type=file_path, help="File to write, such as model.zip; it must not exist.")
    parser.add_argument("--dataset", help="Name of the data set in the model card; by default data.name of the run.")


def export(options: Options) -> None:
    """Write a trained model into one file that needs neither the run folder nor the data.

    `predict`, `evaluate` and `anysubset.load` take the file in place of a run folder. It holds weights, settings,
    scores by scenario and a model card, and names no file or folder of this machine.
    """
    if "output" not in options:
        raise InputError("Say which file to write: --output model.zip.")
    api.export(options["run"], output=options["output"], dataset=options.get("dataset"), report=say)
