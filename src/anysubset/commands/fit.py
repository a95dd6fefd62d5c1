"""`anysubset fit`: train an experiment."""

from pathlib import Path

import jsonargparse

from anysubset import api
from anysubset.commands.options import Options, file_path
from anysubset.commands.progress import track_steps
from anysubset.commands.terminal import say
from anysubset.experiments.files import add_settings, read_experiment
from anysubset.experiments.own_options import options_of_other_method
from anysubset.experiments.settings import flatten


def fit_options(parser: jsonargparse.ArgumentParser) -> None:
    """Add the options of `fit`."""
    parser.add_argument(
        "experiment",
        nargs="+",
        type=file_path,
        help="YAML files of settings, which are joined, such as DATA.yaml RECIPE.yaml; options override them.",
    )
    parser.add_argument("--run", type=file_path, help="Run folder; by default runs/ and the name of the experiment.")
    parser.add_argument("--resume", action="store_true", help="Continue the run in the folder, if there is one.")
    add_settings(parser)


def fit(options: Options) -> None:
    """Train an experiment.

    The best weights are selected by validation on all scenarios; the test split is not used.
    """
    paths = [Path(path) for path in options["experiment"]]
    overrides = {name: value for name, value in options.items() if name not in ("experiment", "run", "resume")}
    folder = Path(options.get("run") or Path("runs") / "_".join(path.stem for path in paths))
    changes = flatten(overrides)
    experiment = read_experiment(paths, changes)
    for name, value in options_of_other_method(paths, changes).items():
        method = experiment.method["name"]
        say(f"note: {method} is trained with {name} {value}, which the files set for another method: see --{name}")
    api.fit(experiment, run=folder, resume=options.get("resume", False), report=say, progress=track_steps)
    say(f"Next: anysubset evaluate {folder} --split test")
