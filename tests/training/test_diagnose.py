import json
import shutil
from collections.abc import Callable
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from anysubset.batches import Batch
from anysubset.datasets.table import create_dataset
from anysubset.errors import InputError
from anysubset.experiments.files import write_experiment
from anysubset.methods.creation import create_method
from anysubset.methods.method import Method
from anysubset.scenarios import all_scenarios, scenario_name
from anysubset.system import tensor_file
from anysubset.system.written import RECORD
from anysubset.training.diagnose import diagnose

SHARING = ("gmd", "sharing", "dropout", "full")
Told = Callable[..., str]


@pytest.fixture
def run(trained_table: Path, tmp_path: Path) -> Path:
    """A copy of the trained run that a test may write to."""
    return Path(shutil.copytree(trained_table, tmp_path / "run"))


def opened(make_table_experiment, name: str, **options: object) -> tuple[Method, list[Batch]]:
    """A method whose parameters have gradients already, and two batches of six training samples."""
    experiment = make_table_experiment()
    dataset = create_dataset(experiment.data, experiment.task)
    torch.manual_seed(0)
    method, _ = create_method(name, dataset.task, options)
    for parameter in method.parameters():
        parameter.grad = torch.full_like(parameter, 7)
    return method, list(dataset.training_batches("train", 6, 0, 0, 2))


def state_of(method: Method) -> dict[str, Tensor]:
    grads = {f"grad.{name}": parameter.grad.clone() for name, parameter in method.named_parameters()}
    weights = {name: value.clone() for name, value in method.state_dict().items()}
    return {**weights, **grads, "chance": torch.get_rng_state()}


# ---------------------------------------------------------------------------------------------------- the rows


@pytest.mark.parametrize("name", SHARING)
def test_diagnose_gives_the_gradients_of_every_case_and_leaves_the_method_unchanged(make_table_experiment, name):
    method, batches = opened(make_table_experiment, name)
    cases = all_scenarios(method.task.modalities)
    before = state_of(method)
    seen = diagnose(method, [[batch] for batch in batches], cases)
    after = state_of(method)
    assert len(before) > 20
    assert [key for key in before if not torch.equal(before[key], after[key])] == []
    assert method.training
    assert [step for step, *_ in seen.entries] == [1, 2]
    # Expected gradients from one backward pass per case.
    shared = method.network.shared_parameters()
    method.eval()
    for batch, (_, indices_of_cases, arrays) in zip(batches, seen.entries, strict=True):
        assert [seen.cases[index] for index in indices_of_cases] == [scenario_name(case) for case in cases]
        rows = []
        for case in cases:
            # Directly through the network, without the detached branches of `gmd`.
            features = method.network.features({name: batch.inputs[name] for name in case})
            output, indices = method.network.output_of_case(features, case)
            loss = method.task.loss(output, batch.target[indices])
            grads = torch.autograd.grad(loss, shared, allow_unused=True, materialize_grads=True)
            rows.append(torch.cat([gradient.flatten() for gradient in grads]).double())
        jacobian = torch.stack(rows)
        np.testing.assert_allclose(arrays["gramian"], jacobian @ jacobian.T, rtol=1e-3, atol=1e-6)


def test_conflict_is_measured_on_shared_parameters_however_the_method_was_decoupled(make_table_experiment):
    norms = {}
    for conflict in ("shared", "all"):
        method, batches = opened(make_table_experiment, "gmd", conflict=conflict)
        (entry,) = diagnose(method, [batches[:1]], all_scenarios(method.task.modalities)).entries
        norms[conflict] = entry[2]["norms"]
    np.testing.assert_array_equal(norms["all"], norms["shared"])


@pytest.mark.parametrize("option", ["batched", "recompute"])
def test_diagnose_gives_the_same_gradients_if_an_update_batches_or_recomputes_encoders(make_table_experiment, option):
    products = []
    for options in ({}, {option: True}):
        experiment = make_table_experiment({"method.dropout": 0.0})
        dataset = create_dataset(experiment.data, experiment.task)
        torch.manual_seed(0)
        method, update = create_method("gmd", dataset.task, options)
        batches = list(dataset.training_batches("train", 6, 0, 0, 1))
        call_encoder = method.call_encoder
        (entry,) = diagnose(method, [batches], all_scenarios(method.task.modalities)).entries
        products.append(entry[2]["gramian"])
        # The update rule still works afterwards.
        assert method.call_encoder == call_encoder == update.call_encoder
        assert not update.gmd.branches
    np.testing.assert_allclose(products[1], products[0], rtol=1e-6)


def test_micro_batches_are_diagnosed_as_one_batch(make_table_experiment):
    method, batches = opened(make_table_experiment, "sharing")
    cases = all_scenarios(method.task.modalities)
    (together,) = diagnose(method, [batches], cases).entries
    apart = diagnose(method, [[batch] for batch in batches], cases).entries
    assert together[1] == apart[0][1]
    # A row is the mean over the samples of both, and no longer than the longer of the two.
    assert (together[2]["norms"] <= np.maximum(apart[0][2]["norms"], apart[1][2]["norms"]) + 1e-9).all()


def test_batches_without_eligible_samples_are_skipped(make_table_experiment):
    method, batches = opened(make_table_experiment, "sharing")
    text = Batch({"text": batches[0].inputs["text"]}, batches[0].target, batches[0].ids)
    seen = diagnose(method, [[text], [batches[1]]], [("audio",), ("vision",)])
    assert [step for step, *_ in seen.entries] == [2]
    with pytest.raises(InputError, match="No sample of these batches is eligible"):
        diagnose(method, [[text]], [("audio",)])


def test_a_method_without_shared_parameters_cannot_be_diagnosed(make_table_experiment):
    method, batches = opened(make_table_experiment, "ensemble")
    with pytest.raises(InputError, match="Ensemble shares no parameters between the modalities"):
        diagnose(method, [batches], [("text",)])


# -------------------------------------------------------------------------------------------------- the command


def test_a_run_is_diagnosed(output_of, run):
    # Apart from diagnosis.json and the record of who wrote it, the run stays as it is.
    files = {path: path.read_bytes() for path in run.rglob("*") if path.is_file() and path.name != RECORD}
    out = output_of("diagnose", run, "--batches", 3)
    step = tensor_file.load(run / "checkpoints" / "best.safetensors")[1]["step"]
    assert f"Gradients of the weights of step {step}; {run}" in out
    assert "split 'val', 3 samples, 3 batches" in out
    assert "of the pairs of cases conflict, the mean over batches" in out
    assert "Conflicting pairs in the first, middle and last third of training: " in out
    assert "1st third" in out
    diagnosis = json.loads((run / "diagnosis.json").read_text())
    assert (diagnosis["method"], diagnosis["split"], diagnosis["seed"]) == ("gmd", "val", 0)
    assert diagnosis["now"]["steps"] == 3
    cases = [scenario_name(case) for case in all_scenarios(("text", "audio", "vision"))]
    assert sorted(diagnosis["now"]["cases"]) == sorted(cases) == sorted(diagnosis["training"]["coefficients"])
    pairs = {frozenset(pair["cases"]) for pair in diagnosis["now"]["pairs"]}
    assert pairs == set(map(frozenset, combinations(cases, 2)))
    assert list(diagnosis["learning"]) == ["text", "audio", "vision"]
    for path, content in files.items():
        assert path.read_bytes() == content
    # A second diagnosis gives the same result.
    output_of("diagnose", run, "--batches", 3)
    assert json.loads((run / "diagnosis.json").read_text()) == diagnosis


def test_volumes_are_diagnosed(output_of, trained, tmp_path):
    folder = Path(shutil.copytree(trained, tmp_path / "run"))
    out = output_of("diagnose", folder, "--split", "train", "--batches", 2)
    assert "split 'train', 5 patients, 2 batches" in out
    diagnosis = json.loads((folder / "diagnosis.json").read_text())
    assert diagnosis["now"]["norms"]["t2"] > 0
    assert diagnosis["training"]["steps"] == 4


@pytest.mark.parametrize("name", ["sharing", "dropout", "full"])
def test_methods_trained_without_decoupling_are_diagnosed_too(output_of, make_table_experiment, tmp_path, name):
    write_experiment(make_table_experiment({"method.name": name, "train.steps": 2}), tmp_path / "tiny.yaml")
    output_of("fit", tmp_path / "tiny.yaml", "--run", tmp_path / "run")
    out = output_of("diagnose", tmp_path / "run", "--batches", 1, "--cases", "missing=2")
    assert "Training logged no conflict: only `gmd` computes it" in out
    diagnosis = json.loads((tmp_path / "run" / "diagnosis.json").read_text())
    assert (diagnosis["now"]["cases"], diagnosis["training"]) == (["text", "audio", "vision"], None)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--batches", 0), "The number of batches must be at least 1, not 0."),
        (("--batches", 10**29), "The number of batches must be at most 1,000,000, not"),
        (("--split", "tset"), "Unknown split 'tset'. Did you mean 'test'?"),
        (("--cases", "al"), "Unknown cases 'al'. Did you mean 'all'?"),
        (("--batchs", 1), "Unknown option of `diagnose` '--batchs'"),
    ],
)
def test_wrong_input_is_refused_in_one_line_and_no_file_is_written(refused, run, options, words):
    assert words in refused("diagnose", run, *options)
    assert not (run / "diagnosis.json").exists()


def test_a_folder_that_is_not_a_run_is_refused(refused, tmp_path):
    assert "is no run folder" in refused("diagnose", tmp_path)


def test_an_ensemble_is_refused_before_its_data_are_read(refused, output_of, make_table_experiment, tmp_path):
    settings = {"method.name": "ensemble", "train.steps": 1, "train.validate_every": 1}
    write_experiment(make_table_experiment(settings), tmp_path / "tiny.yaml")
    output_of("fit", tmp_path / "tiny.yaml", "--run", tmp_path / "run")
    line = refused("diagnose", tmp_path / "run", "--split", "none")
    assert "Ensemble shares no parameters between the modalities" in line
    assert not (tmp_path / "run" / "diagnosis.json").exists()


def test_a_damaged_log_is_refused_and_no_file_is_written(refused, run):
    (run / "decoupling.npz").write_bytes(b"half")
    assert "decoupling.npz is damaged" in refused("diagnose", run)
    assert not (run / "diagnosis.json").exists()
