"""The experiments that come with the project can be read, and describe a task and a method."""

from pathlib import Path

import pytest

import anysubset
from anysubset.cli import new_method
from anysubset.data import create_task
from anysubset.experiment import read_experiment

FILES = sorted((Path(__file__).parents[1] / "experiments").glob("*.yaml"))


def test_there_are_experiments():
    assert {"brats_gmd.yaml", "lgg_gmd.yaml"} <= {path.name for path in FILES}


@pytest.mark.parametrize("path", [*FILES, Path(anysubset.__file__).with_name("demo.yaml")], ids=lambda path: path.name)
def test_an_experiment_describes_a_task_and_a_method(path: Path):
    experiment = read_experiment(path)
    task = create_task(experiment.data, experiment.model)
    assert set(new_method(experiment, task).network.modalities) == set(task.modalities)


def test_the_brats_experiment_has_the_network_of_the_paper():
    experiment = read_experiment(FILES[[path.name for path in FILES].index("brats_gmd.yaml")])
    method = new_method(experiment, create_task(experiment.data, experiment.model))
    assert sum(parameter.numel() for parameter in method.parameters()) == 3_245_235
