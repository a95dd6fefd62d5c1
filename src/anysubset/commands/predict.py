"""`anysubset predict`: predict from the modalities that are present."""

import jsonargparse

from anysubset import api
from anysubset.commands.options import Options, file_path
from anysubset.commands.progress import track
from anysubset.commands.terminal import complain, say
from anysubset.errors import PatientsError

SOME_FAILED, INTERRUPTED = 3, 130  # Exit codes.


def predict_options(parser: jsonargparse.ArgumentParser) -> None:
    """Add the options of `predict`."""
    parser.add_argument("run", type=file_path, help="Run folder.")
    parser.add_argument("path", nargs="+", type=file_path, help="Folder of one or of several patients, or a table.")
    parser.add_argument("--output", type=file_path, help="Output folder; by default `predictions` in the run folder.")
    parser.add_argument("--overwrite", action="store_true", help="Replace predictions of another run; no other files.")
    parser.add_argument(
        "--coverage", type=float, help="Of a table, add sets or intervals that hold this share of the targets: 0.9."
    )
    parser.add_argument(
        "--jobs",
        type=int,
        help="Predict so many patients at a time on the CPU, each with one thread. The predictions do not depend on "
        "the number. By default one at a time, with all threads.",
    )
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:N.")


def predict(options: Options) -> int:
    """Predict from the modalities that are present.

    Writes a mask in the grid of its files for each patient, or a row for each sample of a table. A patient whose files
    are faulty is reported on stderr and passed over. Give the command again to continue after an interruption: patients
    that it has predicted from the same files, by the same weights, are skipped.

    Exit code 3 if some of several patients failed, and the others are predicted.
    """
    try:
        api.predict(
            options["run"],
            options["path"],
            output=options.get("output"),
            overwrite=options.get("overwrite", False),
            coverage=options.get("coverage"),
            jobs=options.get("jobs"),
            device=options.get("device", "auto"),
            report=say,
            warn=complain,
            progress=track,
        )
    except PatientsError as error:
        complain(str(error))
        return SOME_FAILED
    except KeyboardInterrupt:
        complain("interrupted; give the same command again to continue")
        return INTERRUPTED
    return 0
