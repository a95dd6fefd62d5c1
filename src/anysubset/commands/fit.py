"""`anysubset fit`: training."""

from pathlib import Path

import jsonargparse

from anysubset.commands.given import Given
from anysubset.commands.progress import track_steps
from anysubset.commands.terminal import say, show_support
from anysubset.experiments.files import add_settings, read_experiment
from anysubset.experiments.settings import Experiment, flatten
from anysubset.system.devices import device_of


def fit_options(parser: jsonargparse.ArgumentParser) -> None:
    """The options of `fit`."""
    parser.add_argument("experiment", type=Path, help="YAML file of settings; options given beside it win.")
    parser.add_argument("--run", type=Path, help="Run folder; by default runs/ and the name of the experiment.")
    parser.add_argument("--resume", action="store_true", help="Go on with the run in the folder, if there is one.")
    add_settings(parser)


def fit(given: Given) -> None:
    """Train an experiment.

    Validation on all scenarios selects the best weights; nothing is computed on the test split.
    """
    path = Path(given["experiment"])
    own = {"experiment", "run", "resume"}
    overrides = flatten({name: value for name, value in given.items() if name not in own})
    experiment = read_experiment(path, overrides)
    folder = Path(given.get("run") or Path("runs") / path.stem)
    train_run(experiment, folder, resume=given.get("resume", False))
    say(f"Next: anysubset evaluate {folder} --split test")


def train_run(experiment: Experiment, folder: Path, resume: bool) -> None:
    """Train into a run folder, and show the validation scores of the best weights."""
    import torch

    from anysubset.datasets.table import create_dataset
    from anysubset.methods import method_of
    from anysubset.scoring.scores import shown
    from anysubset.system import processes
    from anysubset.training.loop import train
    from anysubset.training.run import Run

    experiment = experiment.anchored()
    # What can be found wrong without reading a volume is found before the folder is made.
    device = device_of(experiment.train.device)
    processes.join(device.type)
    dataset = create_dataset(experiment.data, experiment.model, say)
    dataset.check_modalities()
    dataset.ids("train"), dataset.ids("val")
    torch.manual_seed(experiment.seed)
    generator = torch.Generator().manual_seed(experiment.seed)
    method = method_of(experiment.method, dataset.task, generator).to(device)
    parameters = sum(parameter.numel() for parameter in method.parameters())
    with Run(folder, experiment, resume) as run:
        say(f"{folder}: {experiment.method['name']}, {parameters:,} parameters, on {device}")
        show_support(dataset)
        done = train(method, dataset, run, show=track_steps, report=say)
    assert done.best is not None  # The last step is always validated.
    say(
        f"{folder}: {done.step} steps; validation {shown(dataset.selection[0], done.best)} at step {done.best_step}, "
        f"mean of {len(done.validation)} scenarios on {len(dataset.ids('val'))} {dataset.noun}"
    )
    if done.skipped:
        overflow = ", or a gradient in float16 overflowed" * (experiment.train.precision == "float16")
        say(f"{done.skipped} steps were passed over: no sample of their batch was eligible for any case{overflow}")
