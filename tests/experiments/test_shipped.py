"""The experiment and sweep files of the project can be read, and describe a task and a method."""

from pathlib import Path

import pytest
import torch

import anysubset
from anysubset.datasets.table import create_task
from anysubset.experiments.files import read_experiment, settings_in
from anysubset.experiments.settings import Experiment
from anysubset.experiments.sweep import read_sweep
from anysubset.methods.creation import method_of
from anysubset.methods.table import methods_for
from anysubset.tables.signature import Signature
from anysubset.tasks.prediction import Prediction, Stream
from anysubset.tasks.segmentation import Segmentation
from anysubset.training.budget import steps_by_stage

ROOT = Path(__file__).parents[2]
DATA = ROOT / "experiments/data"
RECIPES = ROOT / "experiments/recipes"
PAIRS = [
    *(("brats", "gmd_paper"), ("lgg", "gmd_common"), ("lgg", "volumes_common"), ("mosi", "gmd_sequences")),
    *(("table", "gmd_tables"), ("table", "gmd_small_tables")),
    *(("mosi", "tables_common"), ("table", "tables_common")),
    *(("brats", "nnunet_paper"), ("brats", "rfnet_paper"), ("brats", "demoseg_paper")),
    *(("brats", "mmformer_paper"), ("brats", "shaspec_paper")),
    *(("brats", "acn_paper"), ("brats", "smunet_paper")),
    ("brats", "m3ae_paper"),
    *(("brats", "uhemis_paper"), ("brats", "uhved_paper"), ("brats", "ogm_ge_paper")),
    *(("mosi", "mult_paper"), ("mosi", "gmc_paper"), ("mosi", "mmin_paper"), ("mosi", "gcnet_paper")),
    *(("mosi", "mmin_sequence_paper"), ("mosi", "ogm_ge_sentiment_paper")),
    ("table", "cpm_paper"),
]
SWEEPS = sorted((ROOT / "sweeps").glob("*.yaml"))


def files_of(data: str, recipe: str) -> list[Path]:
    return [DATA / f"{data}.yaml", RECIPES / f"{recipe}.yaml"]


def test_every_shipped_file_is_part_of_a_tested_pair():
    assert {path.stem for path in DATA.iterdir()} == {data for data, _ in PAIRS}
    assert {path.stem for path in RECIPES.iterdir()} == {recipe for _, recipe in PAIRS}


def test_data_files_have_no_settings_of_methods_and_recipes_none_of_the_location_of_data():
    for path in DATA.iterdir():
        assert not {"method", "train"} & set(settings_in(path)), path
    for path in RECIPES.iterdir():
        content = settings_in(path)
        assert set(content) <= {"data", "task", "method", "train"}
        assert set(content.get("data", {})) <= {"augment", "normalise", "clip"}, path


def test_recipes_of_the_comparators_on_volumes_say_what_they_cost():
    comparators = [recipe for data, recipe in PAIRS if data == "brats" and recipe != "gmd_paper"]
    assert len(comparators) == 11
    for recipe in comparators:
        assert "Expected cost" in (RECIPES / f"{recipe}.yaml").read_text(), recipe


def task_of(experiment: Experiment, kind: str | None = None) -> Segmentation | Prediction:
    """The task of an experiment; a table, whose file is not there, counts as one with the sizes of MOSI.

    kind: of the inputs of a table; by default vectors for the preset of this name, else sequences.
    """
    kind = kind or ("vector" if experiment.method.get("preset") == "vectors" else "sequence")
    streams = {"text": Stream(kind, 300), "audio": Stream(kind, 5), "vision": Stream(kind, 20)}
    return create_task(experiment.data, experiment.task, Signature(streams, (), (-3.0, 3.0), {}, {}, {}))


DEMOS = sorted(Path(anysubset.__file__).parent.glob("commands/*.yaml"))


EXPERIMENTS = [*(files_of(*pair) for pair in PAIRS), *([path] for path in DEMOS)]


@pytest.mark.parametrize("paths", EXPERIMENTS, ids=lambda paths: paths[-1].stem)
def test_an_experiment_describes_a_task_and_a_method(paths: list[Path]):
    experiment = read_experiment(paths)
    assert experiment.recipe == paths[-1].stem
    task = task_of(experiment)
    with torch.device("meta"):  # Large networks take time to initialise.
        method, _ = method_of(experiment.method, task)
    assert set(method.network.modalities) == set(task.modalities)


@pytest.mark.parametrize("kind", ["sequence", "vector"])
def test_the_common_recipe_for_tables_serves_every_method_that_fits_them(kind: str, fault):
    refusals = {("gmc", "vector"): "GMC is for sequences"}
    refusals |= {(name, "sequence"): f"{name} is for vectors" for name in ("linear", "boosting")}
    for name in methods_for(Prediction):
        overrides = {"method.name": name, **({"method.score": "laplace"} if name == "ogm_ge" else {})}
        experiment = read_experiment(files_of("table", "tables_common"), overrides)
        task = task_of(experiment, kind)
        with torch.device("meta"):
            if (name, kind) in refusals:
                assert refusals[name, kind] in fault(method_of, experiment.method, task)
            else:
                method, _ = method_of(experiment.method, task)
                assert method.task is task
        # The name of the method is no change of the recipe.
        assert experiment.recipe == ("tables_common (changed)" if name == "ogm_ge" else "tables_common")
        steps = steps_by_stage(experiment.train, {"train": 1.0}, flops={"train": [10**9]})
        assert steps == {"train": 9000}


# Sweeps of many runs, which take seconds to read.
LARGE = {"incomplete_tables.yaml", "league_tables.yaml", "tables.yaml", "search_phantom.yaml"}


@pytest.mark.parametrize(
    "path",
    [pytest.param(path, marks=pytest.mark.slow if path.name in LARGE else (), id=path.name) for path in SWEEPS],
)
def test_a_sweep_describes_experiments(path: Path):
    runs = read_sweep(path, Path("out")).runs
    assert len({str(run.experiment) for run in runs}) == len(runs) > 1
    # A method that the options do not fit is refused.
    kind = "vector" if any(run.experiment.method.get("preset") == "vectors" for run in runs) else None
    methods = {f"{run.experiment.method} {run.experiment.data.name}": run.experiment for run in runs}
    for experiment in methods.values():
        with torch.device("meta"):
            method_of(experiment.method, task_of(experiment, kind))


def test_the_sweeps_of_the_project_are_among_those_tested():
    assert {"ablation_lgg.yaml", "ablation_phantom.yaml", "tables.yaml"} <= {path.name for path in SWEEPS}


def test_the_brats_experiment_has_the_network_of_the_paper():
    experiment = read_experiment(files_of("brats", "gmd_paper"))
    method, _ = method_of(experiment.method, task_of(experiment))
    assert sum(parameter.numel() for parameter in method.parameters()) == 3_245_235


@pytest.mark.parametrize(
    ("recipe", "size"), [("gmd_sequences", 265_729), ("mult_paper", 1_071_211), ("gmc_paper", 1_401_001)]
)
def test_the_mosi_experiments_have_the_networks_of_the_reference(recipe: str, size: int):
    experiment = read_experiment(files_of("mosi", recipe))
    with torch.device("meta"):
        method, _ = method_of(experiment.method, task_of(experiment))
    assert sum(parameter.numel() for parameter in method.parameters()) == size
