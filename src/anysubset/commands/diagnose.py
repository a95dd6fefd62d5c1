"""`anysubset diagnose`: conflict between the cases (trained subsets of the modalities) of a trained run."""

from pathlib import Path

import jsonargparse

from anysubset import api
from anysubset.commands.conflict_tables import show_diagnosis
from anysubset.commands.options import Options, file_path
from anysubset.commands.progress import track
from anysubset.commands.terminal import say


def diagnose_options(parser: jsonargparse.ArgumentParser) -> None:
    """Add the options of `diagnose`."""
    parser.add_argument("run", type=file_path, help="Run folder.")
    parser.add_argument("--split", default="val", help="Split whose samples are used.")
    parser.add_argument("--batches", type=int, default=10, help="Number of batches, drawn as in training.")
    parser.add_argument(
        "--cases",
        default="all",
        help="Cases (subsets of the modalities) to take gradients of: all, missing=R or random=K.",
    )
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:N.")


def diagnose(options: Options) -> None:
    """Show which cases (subsets of the modalities) have conflicting gradients, now and in the log of training.

    Gradients of the trained model are measured on some batches; no weight changes. All numbers are written to
    diagnosis.json in the run folder.
    """
    run = Path(options["run"])
    choices = {name: options[name] for name in ("split", "batches", "cases", "device") if name in options}
    show_diagnosis(api.diagnose(run, **choices, report=say, progress=track), str(run))
    say(f"All numbers: {run / 'diagnosis.json'}")
