"""`anysubset fit`: train an experiment."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import jsonargparse

from anysubset import api
from anysubset.commands.options import Options, file_path
from anysubset.commands.progress import track_steps
from anysubset.commands.terminal import say
from anysubset.errors import InputError
from anysubset.experiments.files import add_settings, read_experiment, read_run_experiment
from anysubset.experiments.own_options import options_of_other_method
from anysubset.experiments.settings import Experiment, flatten


def fit_options(parser: jsonargparse.ArgumentParser) -> None:
    """Add the options of `fit`."""
    parser.add_argument(
        "experiment",
        nargs="*",
        type=file_path,
        help="YAML files of settings, which are joined, such as DATA.yaml RECIPE.yaml; options override them. With "
        "--resume and --run, those of the run if there is no file.",
    )
    parser.add_argument("--run", type=file_path, help="Run folder; by default runs/ and the name of the experiment.")
    parser.add_argument("--resume", action="store_true", help="Continue the run in the folder, if there is one.")
    add_settings(parser)


def fit(options: Options) -> None:
    """Train an experiment.

    The best weights are selected by validation on all scenarios; the test split is not used.
    """
    paths = [Path(path) for path in options.get("experiment") or []]
    resume = options.get("resume", False)
    if not paths and not (resume and "run" in options):
        raise InputError(
            "Name the YAML files of settings, such as DATA.yaml RECIPE.yaml; or continue a run with --resume --run RUN."
        )
    changes = flatten({name: value for name, value in options.items() if name not in ("experiment", "run", "resume")})
    folder = Path(options.get("run") or Path("runs") / "_".join(path.stem for path in paths))
    if paths:
        experiment = chosen_experiment(paths, changes)
        api.fit(experiment, run=folder, resume=resume, report=say, progress=track_steps)
    else:
        read_run_experiment(folder)  # Raises InputError if the folder holds no run.
        api.fit(None, run=folder, resume=True, report=say, progress=track_steps, **changes)
    say(f"Next: anysubset evaluate {folder} --split test")


def chosen_experiment(paths: Sequence[Path], changes: Mapping[str, Any]) -> Experiment:
    """Read an experiment from YAML files and options.

    Args:
        paths: of the files.
        changes: settings of the options by dotted name, which override those of the files.

    Raises:
        InputError: if a file is missing or faulty, or a setting is unknown or of the wrong type.
    """
    experiment = read_experiment(paths, changes)
    of_other_method = options_of_other_method(paths, changes)
    return with_options_it_has(experiment, of_other_method) if of_other_method else experiment


def with_options_it_has(experiment: Experiment, of_other_method: Mapping[str, Any]) -> Experiment:
    """Leave out the options that the files set for another method and that the chosen method lacks; note each option.

    Args:
        experiment: names the chosen method.
        of_other_method: by dotted name, what the files set for the other method.
    """
    from anysubset.methods.creation import method_options

    name = experiment.method["name"]
    available = method_options(name, experiment.method.get("gradients"))
    chosen = dict(experiment.method)
    for setting, value in of_other_method.items():
        option, where = setting.removeprefix("method."), f"{setting} {value}, which the files set for another method"
        if option in available:
            say(f"note: {name} is trained with {where}: see --{setting}")
        else:
            del chosen[option]
            say(f"note: {where}, is left out: {name} has no {option}")
    return replace(experiment, method=chosen)
