"""The experiments and sweeps that come with the project can be read, and describe a task and a method."""

from pathlib import Path

import pytest

import anysubset
from anysubset.datasets.table import create_task
from anysubset.experiments.files import read_experiment
from anysubset.experiments.settings import Experiment
from anysubset.experiments.sweep import read_sweep
from anysubset.methods import method_of
from anysubset.tables.signature import Signature
from anysubset.tasks.prediction import Prediction, Stream
from anysubset.tasks.segmentation import Segmentation

ROOT = Path(__file__).parents[2]
FILES = sorted((ROOT / "experiments").glob("*.yaml"))
SWEEPS = sorted((ROOT / "sweeps").glob("*.yaml"))


def test_there_are_experiments():
    assert {"brats_gmd.yaml", "lgg_gmd.yaml", "mosi_gmd.yaml", "table_gmd.yaml"} <= {path.name for path in FILES}


def task_of(experiment: Experiment) -> Segmentation | Prediction:
    """The task on a table of the sizes of MOSI if it is one on a table, whose sizes only a file tells."""
    kind = "vector" if experiment.model.preset == "vectors" else "sequence"
    streams = {"text": Stream(kind, 300), "audio": Stream(kind, 5), "vision": Stream(kind, 20)}
    return create_task(experiment.data, experiment.model, Signature(streams, (), (-3.0, 3.0), {}, {}, {}))


@pytest.mark.parametrize(
    "path", [*FILES, *Path(anysubset.__file__).parent.glob("commands/*.yaml")], ids=lambda path: path.name
)
def test_an_experiment_describes_a_task_and_a_method(path: Path):
    experiment = read_experiment(path)
    task = task_of(experiment)
    assert set(method_of(experiment.method, task).network.modalities) == set(task.modalities)


@pytest.mark.parametrize("path", SWEEPS, ids=lambda path: path.name)
def test_a_sweep_describes_experiments(path: Path):
    runs = read_sweep(path, Path("out")).runs
    assert len({str(run.experiment) for run in runs}) == len(runs) > 1


def test_there_are_sweeps():
    assert {"ablation_lgg.yaml", "ablation_phantom.yaml", "tables.yaml"} <= {path.name for path in SWEEPS}


def test_the_brats_experiment_has_the_network_of_the_paper():
    experiment = read_experiment(FILES[[path.name for path in FILES].index("brats_gmd.yaml")])
    method = method_of(experiment.method, task_of(experiment))
    assert sum(parameter.numel() for parameter in method.parameters()) == 3_245_235


def test_the_mosi_experiment_has_the_network_of_the_reference():
    experiment = read_experiment(FILES[[path.name for path in FILES].index("mosi_gmd.yaml")])
    method = method_of(experiment.method, task_of(experiment))
    assert sum(parameter.numel() for parameter in method.parameters()) == 265_729
