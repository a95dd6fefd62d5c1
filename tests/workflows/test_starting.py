"""`fit --init`: start a training from the weights of a run or model file."""

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import anysubset
from anysubset.datasets.table import create_dataset
from anysubset.experiments.files import read_experiment, read_run_experiment
from anysubset.experiments.settings import Experiment
from anysubset.methods.creation import create_method
from anysubset.system import tensor_file
from anysubset.system.run_folder import weights_hash
from anysubset.tables.dataset import TableDataset
from anysubset.tables.signature import read_signature
from anysubset.tasks.prediction import Prediction, Stream
from anysubset.workflows.starting import check_method
from anysubset.workflows.trained import read_stored

# A sample has vision alone, so it is left out where vision is.
DROP = {"data.reading.empty": "drop"}


class StoppedError(Exception):
    """Training is stopped before its first step."""


@pytest.fixture
def start_weights(make_table_experiment, monkeypatch):
    """`start_weights(run, init, settings)`: weights with which a training starts, and the lines that are printed."""
    from anysubset.workflows import fitting

    def begin(run: Path, init: Path, **settings: object) -> tuple[dict[str, torch.Tensor], list[str]]:
        begun: dict[str, torch.Tensor] = {}
        lines: list[str] = []

        def stop(method, *rest, **named):
            begun.update({name: value.clone() for name, value in method.state_dict().items()})
            raise StoppedError

        experiment = make_table_experiment({**DROP, **settings})
        with monkeypatch.context() as patch:
            patch.setattr(fitting, "train", stop)
            with pytest.raises(StoppedError):
                anysubset.fit(experiment, run=run, init=init, report=lines.append)
        return begun, lines

    return begin


@pytest.fixture(scope="session")
def two_modalities(tmp_path_factory, make_table_experiment) -> Path:
    """A run of four steps on text and audio."""
    run = tmp_path_factory.mktemp("init") / "two"
    anysubset.fit(make_table_experiment({**DROP, "data.modalities": ["text", "audio"]}), run=run)
    return run


def stored(run: Path) -> dict[str, torch.Tensor]:
    return dict(read_stored(run).tensors)


def test_the_same_modalities_start_with_all_weights(start_weights, trained_table, tmp_path):
    begun, lines = start_weights(tmp_path / "run", trained_table)
    before = stored(trained_table)
    assert begun.keys() == before.keys()
    assert all(torch.equal(begun[name], before[name]) for name in before)
    count = sum(parameter.numel() for parameter in anysubset.load(trained_table).parameters())
    assert f"taken from init: {count:,} parameters of {count:,}: shared, text, audio, vision" in lines
    assert not [line for line in lines if line.startswith(("fresh", "mean of", "left out"))]


def test_a_new_modality_starts_from_the_mean_and_its_encoder_of_another_size_fresh(
    start_weights, two_modalities, tmp_path
):
    begun, lines = start_weights(tmp_path / "run", two_modalities)
    before = stored(two_modalities)
    assert all(torch.equal(begun[name], before[name]) for name in before)
    norms = [name for name in begun if ".vision." in name and begun[name].shape == before_of(before, name).shape]
    assert norms
    for name in norms:
        mean = (before[name.replace("vision", "text")] + before[name.replace("vision", "audio")]) / 2
        assert torch.equal(begun[name], mean)
    assert any(line.startswith("mean of text, audio: ") and line.endswith(" of vision") for line in lines)


def before_of(before: dict[str, torch.Tensor], name: str) -> torch.Tensor:
    return before[name.replace("vision", "text")]


def test_fewer_modalities_start_with_their_own(start_weights, trained_table, tmp_path):
    begun, lines = start_weights(tmp_path / "run", trained_table, **{"data.modalities": ["audio"]})
    before = stored(trained_table)
    assert begun
    assert all(torch.equal(begun[name], before[name]) for name in begun)
    assert not [name for name in begun if "text" in name]
    assert "left out of init: text, vision" in lines


def test_classes_in_place_of_numbers_have_a_fresh_head(start_weights, trained_table, rewritten, tmp_path):
    table = rewritten(y=np.array(["low", "high"] * 7))
    begun, lines = start_weights(tmp_path / "run", trained_table, **{"data.name": "table", "data.root": str(table)})
    before = stored(trained_table)
    heads = [name for name in begun if begun[name].shape != before[name].shape]
    assert heads == ["network.head.1.weight", "network.head.1.bias"]
    assert all(torch.equal(begun[name], before[name]) for name in begun if name not in heads)
    # A head for two classes on features of width 8.
    fresh = "fresh: 18 parameters, outputs, for other regions or classes: network.head.1.weight, network.head.1.bias"
    assert fresh in lines


def test_taken_modalities_keep_the_statistics_of_their_weights(
    two_modalities, make_table_experiment, rewritten, table_arrays
):
    """The same number must mean the same to the weights, whatever the mean of the new table is."""
    table = rewritten(text=table_arrays()["text"] * 10 + 3)
    experiment = make_table_experiment({"data.root": str(table)})
    start = read_signature(two_modalities / "signature.safetensors")
    own = create_dataset(experiment.data, experiment.task).signature.statistics
    after = create_dataset(experiment.data, experiment.task, start=start).signature.statistics
    for name in ("text", "audio"):
        assert torch.equal(after[name][0], start.statistics[name][0])
        assert torch.equal(after[name][1], start.statistics[name][1])
    assert not torch.allclose(after["text"][0], own["text"][0])  # Which text would have without `init`.
    assert torch.equal(after["vision"][0], own["vision"][0])
    # What the settings leave as it is stored stays so: mean 0 and deviation 1.
    stored_data = replace(experiment.data, as_stored=["text"])
    mean, deviation = create_dataset(stored_data, experiment.task, start=start).signature.statistics["text"]
    assert (mean.unique().tolist(), deviation.unique().tolist()) == ([0.0], [1.0])


def test_weights_and_columns_stay_together_if_the_columns_are_in_another_order(tmp_path):
    def dataset(name: str, columns: str, rows: list[str], **more: Any) -> TableDataset:
        (tmp_path / name).write_text("\n".join([f"id,y,split,{columns}", *rows]) + "\n")
        settings = read_experiment(None, {"data.name": "table", "data.root": str(tmp_path / name)})
        made = create_dataset(settings.data, settings.task, **more)
        assert isinstance(made, TableDataset)
        return made

    split = ["train", "train", "train", "val"]
    one = dataset("one.csv", "a_1,a_2", [f"s{row},{row}.5,{split[row]},{row},{row * row}.0" for row in range(4)])
    rows = [f"s{row},{row}.5,{split[row]},{row * row}.0,{row}" for row in range(4)]
    two = dataset("two.csv", "a_2,a_1", rows, start=one.signature)
    assert one.signature.columns == two.signature.columns == {"a": ("a_1", "a_2")}
    assert torch.equal(one.table.inputs["a"].values, two.table.inputs["a"].values)
    # Other columns are another input: they keep the statistics of their own.
    other = dataset("other.csv", "a_2,a_3", rows, start=one.signature)
    assert other.signature.columns == {"a": ("a_2", "a_3")}
    assert other.signature.statistics["a"][0].tolist() == [5 / 3, 1.0]  # Of 0, 1, 4 and of 0, 1, 2.


def test_a_run_goes_on_without_the_run_from_which_it_started(
    two_modalities, make_table_experiment, tmp_path, stopped_before
):
    init = shutil.copytree(two_modalities, tmp_path / "init")
    code = weights_hash(init)
    experiment = make_table_experiment({"train.steps": 2, "train.validate_every": 1})
    anysubset.fit(experiment, run=tmp_path / "whole", init=init)
    assert read_run_experiment(tmp_path / "whole").init == f"weights:{code}"
    for last in (1, 2):  # Before the first checkpoint, and after it.
        run = tmp_path / f"stopped{last}"
        with stopped_before(last), pytest.raises(KeyboardInterrupt):
            anysubset.fit(experiment, run=run, init=init)
    shutil.rmtree(init)
    for last in (1, 2):
        run = tmp_path / f"stopped{last}"
        anysubset.fit(run=run, resume=True)
        assert same_weights(run, tmp_path / "whole")
    # The same command again, as a script that is queued again has it.
    assert anysubset.fit(experiment, run=tmp_path / "whole", init=init, resume=True).steps == 2


def same_weights(one: Path, other: Path) -> bool:
    tensors = [tensor_file.load(run / "checkpoints/best.safetensors")[0] for run in (one, other)]
    return all(torch.equal(tensors[0][name], tensors[1][name]) for name in tensors[1])


def test_a_model_file_is_a_start_as_its_run_is(start_weights, trained_table, tmp_path):
    file = anysubset.api.export(trained_table, output=tmp_path / "model.zip")
    from_file, _ = start_weights(tmp_path / "a", file)
    from_run, _ = start_weights(tmp_path / "b", trained_table)
    assert all(torch.equal(from_file[name], from_run[name]) for name in from_run)


def test_a_blend_starts_in_all_its_parts(start_weights, make_table_experiment, tmp_path):
    blend = {"method.name": "blend"}
    anysubset.fit(make_table_experiment({**DROP, **blend, "data.modalities": ["text", "audio"]}), run=tmp_path / "two")
    begun, lines = start_weights(tmp_path / "run", tmp_path / "two", **blend)
    before = stored(tmp_path / "two")
    assert {name.split(".")[1] for name in before} == {"sharing", "ensemble"}
    assert all(torch.equal(begun[name], before[name]) for name in before)
    assert any(line.startswith("mean of text, audio") for line in lines)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"method.width": 16}, "another architecture: method.width is 16 here and 8 there; network."),
        ({"method.name": "ensemble"}, "another architecture: method.name is ensemble here and gmd there; experts."),
        ({"method.layers": 2}, "another architecture: method.layers is 2 here and 1 there; "),
        ({"method.name": "taught"}, "init does not apply to taught, which trains parts besides those that predict"),
        ({"method.name": "mmin"}, "init does not apply to mmin, which trains parts besides those that predict"),
    ],
)
def test_weights_that_do_not_fit_are_refused_in_one_line(
    make_table_experiment, fault, trained_table, tmp_path, settings, words
):
    experiment = make_table_experiment(settings)
    assert words in fault(anysubset.fit, experiment, run=tmp_path / "run", init=trained_table)
    assert not (tmp_path / "run/experiment.yaml").exists()


def test_a_method_that_is_computed_at_once_does_not_start_from_weights(fault):
    task = Prediction(("a",), streams={"a": Stream("vector", 2)}, classes=("x", "y"))
    for name in ("linear", "boosting", "cpm"):
        method, _ = create_method(name, task, {})
        assert f"init does not apply to {name}, which is computed from all" in fault(check_method, method, name)
    blend, _ = create_method("blend", task, {"parts": ["sharing", "linear"]})
    assert "init does not apply to blend: its part Linear, which is computed" in fault(check_method, blend, "blend")


def test_the_weights_of_volumes_are_no_start_for_a_table(make_table_experiment, fault, trained, tmp_path):
    line = fault(anysubset.fit, make_table_experiment(), run=tmp_path / "run", init=trained)
    assert line == "The run of init was trained on volumes, and these data are a table."


def test_init_is_a_run(make_table_experiment, fault, trained_table, two_modalities, tmp_path):
    experiment, run = make_table_experiment({"train.steps": 1}), tmp_path / "run"
    assert "there is no run folder or model file" in fault(anysubset.fit, experiment, run=run, init=tmp_path / "none")
    assert "no run folder" in fault(anysubset.fit, experiment, run=run, init=tmp_path)
    anysubset.fit(experiment, run=run, init=trained_table)
    again = read_run_experiment(run)
    line = fault(anysubset.fit, again, run=tmp_path / "again")
    assert "as a run records it: name the run folder or model file with these weights" in line
    assert "init differ" in fault(anysubset.fit, experiment, run=run, init=two_modalities, resume=True)
    assert "init differ" in fault(anysubset.fit, experiment, run=run, resume=True)


def test_volumes_with_other_regions_take_all_but_the_head(trained, make_experiment, output_of, tmp_path):
    from anysubset.experiments.files import write_experiment

    fewer: Experiment = make_experiment({"data.modalities": ["t2", "flair"], "train.steps": 1})
    write_experiment(fewer, tmp_path / "fewer.yaml")
    regions = ("--data.regions", "{tumour: [1, 2, 4]}")
    out = output_of("fit", tmp_path / "fewer.yaml", *regions, "--run", tmp_path / "run", "--init", trained)
    taken, fresh, left_out = [line for line in out.splitlines() if "init" in line or line.startswith("fresh")]
    assert taken.startswith("taken from init: ")
    assert taken.endswith(": shared, t2, flair")
    assert fresh.endswith("outputs, for other regions or classes: network.head.weight, network.head.bias")
    assert left_out == "left out of init: t1ce, t1"
