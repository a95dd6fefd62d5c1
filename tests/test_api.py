"""The functions of the Python interface equal the commands, return values, and print nothing."""

import csv
import json
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

import pytest
import torch

import anysubset
from anysubset import api
from anysubset.batches import Inputs
from anysubset.errors import InputError
from anysubset.experiments.files import read_experiment
from anysubset.experiments.settings import Experiment
from anysubset.methods.ensemble import Ensemble
from anysubset.models.network import Network
from anysubset.system import tensor_file
from anysubset.tasks.prediction import Prediction
from anysubset.tasks.task import Task
from anysubset.workflows.arguments import experiment_of

TINY = {"method.width": 8, "method.layers": 1, "train.steps": 2, "train.batch": 4, "train.device": "cpu"}


def tensors(run: Path) -> dict[str, torch.Tensor]:
    return tensor_file.load(run / "checkpoints/best.safetensors")[0]


def same_bits(one: Path, other: Path) -> bool:
    mine, theirs = tensors(one), tensors(other)
    return set(mine) == set(theirs) and all(torch.equal(mine[name], theirs[name]) for name in mine)


# ------------------------------------------------------------------------------------------------------- fit


def test_fit_trains_the_same_weights_as_the_command_and_prints_nothing(trained_table: Path, tmp_path: Path, capsys):
    lines: list[str] = []
    capsys.readouterr()
    done = anysubset.fit(trained_table.with_name("tiny.yaml"), run=str(tmp_path / "run"), report=lines.append)
    assert capsys.readouterr() == ("", "")
    assert same_bits(tmp_path / "run", trained_table)
    facts = tensor_file.load(trained_table / "checkpoints/best.safetensors")[1]
    assert (done.folder, done.steps, done.skipped, done.metric) == (tmp_path / "run", 4, 0, "loss")
    assert (done.best, done.best_step) == (facts["validation_mean"], facts["step"])
    assert set(done.validation) == set(facts["validation"])
    assert lines[-1].startswith(f"{tmp_path / 'run'}: 4 steps; validation loss {done.best:.3f} at step")
    # By hand, see `make_arrays`: of the 8 training samples, 0 to 3 lack a modality.
    assert "4 of 8 training samples have every modality" in lines


def test_nested_and_dotted_settings_are_equivalent(utterances: Path, tmp_path: Path):
    nested = {"data": {"name": "mosi", "root": str(utterances)}, "method": {"width": 8, "layers": 1}}
    anysubset.fit(nested, run=tmp_path / "a", train={"steps": 2, "batch": 4, "device": "cpu"}, seed=3)
    dotted = {"data.name": "mosi", "data.root": str(utterances), **TINY, "seed": 3}
    anysubset.fit(dotted, run=tmp_path / "b")
    assert same_bits(tmp_path / "a", tmp_path / "b")
    assert read_experiment(tmp_path / "a/experiment.yaml") == read_experiment(tmp_path / "b/experiment.yaml")
    assert read_experiment(tmp_path / "a/experiment.yaml").seed == 3


def test_settings_override_those_of_an_experiment(make_table_experiment: Callable[..., Experiment]):
    experiment = make_table_experiment()
    assert experiment_of(experiment, {}) is experiment
    changed = experiment_of(experiment, {"train": {"steps": 9}, "data.fold": 0})
    assert (changed.train.steps, changed.train.batch, changed.data.root) == (9, 4, experiment.data.root)


def test_a_run_is_resumed_but_not_overwritten(trained_table: Path, tmp_path: Path, stopped_before):
    experiment = trained_table.with_name("tiny.yaml")
    with stopped_before(3), pytest.raises(KeyboardInterrupt):
        anysubset.fit(experiment, run=tmp_path / "run")
    with pytest.raises(InputError, match="already holds a run"):
        anysubset.fit(experiment, run=tmp_path / "run")
    anysubset.fit(experiment, run=tmp_path / "run", resume=True)
    assert same_bits(tmp_path / "run", trained_table)


def test_wrong_settings_are_refused_before_a_folder_is_created(tmp_path: Path):
    with pytest.raises(InputError, match=r"Unknown setting 'train\.stepz'\. Did you mean 'train\.steps'\?"):
        anysubset.fit({}, run=tmp_path / "run", train={"stepz": 3})
    with pytest.raises(InputError, match="There is no experiment file"):
        anysubset.fit(tmp_path / "gone.yaml", run=tmp_path / "run")
    assert not (tmp_path / "run").exists()


# ----------------------------------------------------------------------------- methods and networks of the user


class Halved(Ensemble):
    """An ensemble whose predictions are multiplied by a factor."""

    def __init__(self, task: Task, *, factor: float = 0.5) -> None:
        super().__init__(task)
        self.factor = factor

    def predict(self, inputs: Inputs) -> torch.Tensor:
        return self.factor * super().predict(inputs)


class Sums(Network):
    """The sum over the modalities of a linear function of the mean over time."""

    def __init__(self, task: Prediction) -> None:
        super().__init__(task.modalities)
        self.layers = torch.nn.ModuleDict(
            {name: torch.nn.Linear(stream.size, 4) for name, stream in task.streams.items()}
        )
        self.head = torch.nn.Linear(4, 1)

    def encode(self, modality: str, x: torch.Tensor, valid: torch.Tensor | None = None) -> torch.Tensor:
        return self.layers[modality](x.mean(dim=1))

    def decode(self, features: Mapping[str, torch.Tensor]) -> torch.Tensor:
        return self.head(sum(features.values()))


def test_a_user_defined_method_is_recorded_by_name_and_must_be_passed_again(trained_table: Path, tmp_path: Path):
    file, run = trained_table.with_name("tiny.yaml"), tmp_path / "run"
    anysubset.fit(file, run=run, method=Halved, **{"method.factor": 0.25})
    # Options of the method in the file do not apply to the user-defined method.
    stored = read_experiment(run / "experiment.yaml").method
    assert stored == {"factor": 0.25, "name": f"{__name__}.Halved"}
    method = anysubset.load(run, method=Halved, device="cpu")
    assert isinstance(method, Halved)
    assert method.factor == 0.25
    assert anysubset.evaluate(run, method=Halved, device="cpu").scores
    assert anysubset.fit(run / "experiment.yaml", run=run, method=Halved, resume=True).steps == 4
    with pytest.raises(InputError, match=r"trained with a method of your own, .*Halved: pass it in Python, method="):
        anysubset.load(run)
    with pytest.raises(InputError, match=r"trained with method .*Halved, not .*Ensemble"):
        anysubset.load(run, method=Ensemble)
    with pytest.raises(InputError, match="Unknown option of method"):
        anysubset.fit(file, run=tmp_path / "other", method=Halved, **{"method.factr": 0.25})


def test_an_instance_of_a_method_is_trained(trained_table: Path, tmp_path: Path):
    file = trained_table.with_name("tiny.yaml")
    instance = Halved(anysubset.load(trained_table, device="cpu").task)
    assert anysubset.fit(file, run=tmp_path / "run", method=instance).steps == 4
    loaded = anysubset.load(tmp_path / "run", method=Halved(instance.task), device="cpu")
    assert all(torch.equal(value, loaded.state_dict()[name]) for name, value in tensors(tmp_path / "run").items())
    with pytest.raises(InputError, match="takes no network= and no options"):
        anysubset.fit(file, run=tmp_path / "other", method=instance, **{"method.factor": 1.0})


def test_a_report_draws_slices_of_a_user_defined_method_if_it_is_passed(trained: Path, tmp_path: Path):
    file, run = trained.with_name("tiny.yaml"), tmp_path / "run"
    anysubset.fit(file, run=run, method=Halved)
    anysubset.evaluate(run, method=Halved, device="cpu")
    pages = {}
    for name, method in {"none": None, "other": Ensemble, "one": Halved, "several": [Ensemble, Halved]}.items():
        page = anysubset.write_report(run, output=tmp_path / f"{name}.html", images=True, method=method)
        pages[name] = page.read_text(encoding="utf-8")
    pictures = {name: text.count("slice of") for name, text in pages.items()}
    assert pictures["one"] == pictures["several"] > 0
    assert pictures["none"] == pictures["other"] == 0
    assert "Halved: pass it in Python, method=" in pages["none"]
    assert "Halved: pass it in Python, method=" in pages["other"]


def test_a_user_defined_network_is_trained_by_gmd(trained_table: Path, tmp_path: Path):
    file, run = trained_table.with_name("tiny.yaml"), tmp_path / "run"
    anysubset.fit(file, run=run, network=Sums)
    assert read_experiment(run / "experiment.yaml").method == {"name": "gmd", "network": f"{__name__}.Sums"}
    assert (run / "decoupling.npz").is_file()
    method = anysubset.load(run, network=Sums, device="cpu")
    assert anysubset.load(run, network=Sums(method.task), device="cpu").state_dict().keys() == tensors(run).keys()
    assert anysubset.evaluate(run, network=Sums, device="cpu").scores
    with pytest.raises(InputError, match=r"trained with a network of your own, .*Sums: pass it in Python, network="):
        anysubset.evaluate(run)
    with pytest.raises(InputError, match="has its own network"):
        anysubset.fit(file, run=tmp_path / "other", method="ensemble", network=Sums)


# ----------------------------------------------------------------------------------------------- trained runs


def test_a_loaded_method_predicts_from_any_subset(trained: Path):
    method = anysubset.load(trained, device="cpu")
    assert not method.training
    assert method.task.modalities == ("flair", "t2", "t1ce", "t1")
    volume = torch.zeros(1, 1, 16, 16)
    with torch.no_grad():
        assert method.predict({"t1": volume, "flair": volume}).shape == (1, 3, 16, 16)
    stored = tensors(trained)
    assert stored
    assert all(torch.equal(value, stored[name]) for name, value in method.state_dict().items() if name in stored)


def test_evaluate_returns_the_scores_that_it_writes(trained_table: Path, tmp_path: Path, capsys):
    anysubset.fit(trained_table.with_name("tiny.yaml"), run=tmp_path / "run")
    capsys.readouterr()
    labels = []

    def progress(items: Iterable[object], label: str, total: int) -> Iterable[object]:
        labels.append((label, total))
        return items

    evaluation = anysubset.evaluate(tmp_path / "run", rates=[0.3], device="cpu", progress=progress)
    assert capsys.readouterr() == ("", "")
    assert labels == [("Scoring", 3)]
    with (tmp_path / "run/scores.csv").open(newline="") as file:
        written = [float(row["value"]) for row in csv.DictReader(file)]
    assert sorted(written) == sorted(score.value for score in [*evaluation.scores, *evaluation.random])
    assert {score.scenario for score in evaluation.random} == {("random:0.3",)}
    assert evaluation.dataset.ids("test") == ("v5/1", "v6/0", "v6/1")


def test_predict_returns_the_files_that_it_writes(trained, trained_table, phantoms, utterances, tmp_path):
    masks = anysubset.predict(trained, [phantoms / "phantom_000", phantoms / "phantom_006"], output=tmp_path / "masks")
    assert masks == [tmp_path / "masks/phantom_000_seg.nii.gz", tmp_path / "masks/phantom_006_seg.nii.gz"]
    assert all(path.is_file() for path in masks)
    assert anysubset.predict(trained_table, str(utterances), output=tmp_path) == [tmp_path / "predictions.csv"]
    with pytest.raises(InputError, match="Give one table, not 2"):
        anysubset.predict(trained_table, [utterances, utterances], output=tmp_path)


def test_diagnose_returns_the_result_that_it_writes(trained_table: Path, tmp_path: Path):
    anysubset.fit(trained_table.with_name("tiny.yaml"), run=tmp_path / "run")
    result = api.diagnose(tmp_path / "run", batches=2, device="cpu")
    assert json.loads((tmp_path / "run/diagnosis.json").read_text()) == json.loads(json.dumps(result))
    with pytest.raises(InputError, match="must be at least 1, not 0"):
        api.diagnose(tmp_path / "run", batches=0)


# --------------------------------------------------------------------------------------------- data and reports


def test_inspect_describes_patients_and_tables(phantoms: Path, utterances: Path):
    assert anysubset.inspect(phantoms)["modalities"] == {"flair": 5, "t2": 8, "t1ce": 4, "t1": 6}
    assert anysubset.inspect(str(utterances))["samples"] == 14
    reading = {"modalities": {"words": "text", "audio": "audio", "vision": "vision"}}
    assert "words" in anysubset.inspect(utterances, reading=reading)["modalities"]
    with pytest.raises(InputError, match="nowhere"):
        anysubset.inspect("nowhere.npz")


def test_a_report_of_a_folder_is_written_into_it(trained_table: Path, tmp_path: Path):
    anysubset.fit(trained_table.with_name("tiny.yaml"), run=tmp_path / "runs/a")
    anysubset.evaluate(tmp_path / "runs/a")
    (tmp_path / "runs/begun").mkdir()
    (tmp_path / "runs/begun/experiment.yaml").write_text("{}")
    lines: list[str] = []
    assert anysubset.write_report(tmp_path / "runs", report=lines.append) == tmp_path / "runs/report.html"
    assert lines == [f"{tmp_path / 'runs/begun'} is left out: it has no scores yet"]
    assert "<html" in (tmp_path / "runs/report.html").read_text(encoding="utf-8")
    with pytest.raises(InputError, match="which file to write"):
        anysubset.write_report([tmp_path / "runs", tmp_path / "runs"])
