"""`anysubset predict`: predict from the modalities that are present."""

from collections.abc import Sequence
from pathlib import Path

import jsonargparse

from anysubset import api
from anysubset.commands.options import Options, file_path
from anysubset.commands.progress import track
from anysubset.commands.terminal import complain, say
from anysubset.errors import InputError, PatientsError

SOME_FAILED, INTERRUPTED = 3, 130  # Exit codes.


def predict_options(parser: jsonargparse.ArgumentParser) -> None:
    """Add the options of `predict`."""
    parser.add_argument("run", type=file_path, help="Run folder, or a model file of `anysubset export`.")
    parser.add_argument(
        "path",
        nargs="+",
        type=file_path,
        help="Folder of one or of several patients, or a table. Runs that come before it predict together with the "
        "first: RUN1 RUN2 PATIENTS.",
    )
    parser.add_argument(
        "--output", type=file_path, help="Output folder; by default `predictions` in the folder of the only run."
    )
    parser.add_argument("--overwrite", action="store_true", help="Replace predictions of another run; no other files.")
    parser.add_argument(
        "--coverage", type=float, help="Of a table, add sets or intervals that hold this share of the targets: 0.9."
    )
    parser.add_argument(
        "--probabilities",
        action="store_true",
        help="Also write a volume of probabilities for each region; a table has them anyway.",
    )
    parser.add_argument(
        "--entropy",
        action="store_true",
        help="Also write the entropy in bits, as a volume (of the most uncertain region at every voxel) or a column.",
    )
    parser.add_argument(
        "--jobs",
        type=int,
        help="Predict so many patients at a time on the CPU, each with one thread. The predictions do not depend on "
        "the number. By default one at a time, with all threads.",
    )
    parser.add_argument(
        "--backend",
        help="dask, or dask=ADDRESS of its scheduler: predict patients on the workers of a cluster, on the CPU, one "
        "for each of their threads, in place of --jobs on this machine.",
    )
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:N.")


def predict(options: Options) -> int:
    """Predict from the modalities that are present.

    Writes a mask in the grid of its files for each patient, or a row for each sample of a table. A patient whose files
    are faulty is reported on stderr and passed over. Give the command again to continue after an interruption: patients
    that it has predicted from the same files, by the same weights, are skipped.

    The probabilities of several runs are averaged, such as those of the folds of a cross-validation.

    Exit code 3 if some of several patients failed, and the others are predicted.
    """
    runs, paths = runs_and_inputs([options["run"], *options["path"]])
    try:
        api.predict(
            runs,
            paths,
            output=options.get("output"),
            overwrite=options.get("overwrite", False),
            coverage=options.get("coverage"),
            probabilities=options.get("probabilities", False),
            entropy=options.get("entropy", False),
            jobs=options.get("jobs"),
            backend=options.get("backend"),
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


def runs_and_inputs(paths: Sequence[Path]) -> tuple[list[Path], list[Path]]:
    """The runs and what they predict: the first path is a run, and so are the run folders and model files after it.

    Raises InputError if nothing follows the runs.
    """
    from anysubset.system.model_file import looks_like_model_file
    from anysubset.system.run_folder import holds_run  # Only here, since it loads torch.

    runs = [True, *(holds_run(path) or looks_like_model_file(path) for path in paths[1:])]
    after = runs.index(False) if False in runs else len(paths)
    if after == len(paths):
        raise InputError("Only runs are named: add the patients or the table, anysubset predict RUN .. PATH.")
    return list(paths[:after]), list(paths[after:])
