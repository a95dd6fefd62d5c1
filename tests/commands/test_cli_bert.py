"""The command line on token ids: a pickle with them, a BERT in a folder, and a run that trains both."""

import csv
import json
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch.testing import assert_close

from anysubset import cli
from anysubset.batches import Batch, Observed
from anysubset.experiments.files import read_experiment
from anysubset.gradients.graph import leaves
from anysubset.methods.method import Step
from anysubset.methods.table import create_method
from anysubset.methods.update import fill_gradients
from anysubset.models.presets import sharing_network
from anysubset.scenarios import all_scenarios, scenario_name
from anysubset.system import tensor_file
from anysubset.tables.signature import read_signature
from anysubset.tasks.prediction import Prediction, Stream

NAMES = ("text", "audio", "vision")
FIT = {
    "data.name": "mosi",
    "data.reading.modalities": {"text": "text_bert", "audio": "audio", "vision": "vision"},
    "method.width": 8,
    "method.layers": 1,
    "train.steps": 2,
    "train.batch": 4,
    "train.optimizer": "adamw",
    "train.lr": 1e-3,
    "train.validate_every": 1,
    "train.checkpoint_every": 1,
    "train.log_every": 1,
    "train.device": "cpu",
}


@pytest.fixture(scope="session")
def mosi(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """8 utterances to train on, 3 for validation and 3 for the test, in MMSA's layout. Not to be written to.

    Sentences of 2 to 5 tokens; 1 has no word, and 2 no sound.
    """
    generator = np.random.default_rng(3)
    lengths = np.array([3, 0, 5, 2, 4, 5, 2, 3, 4, 5, 3, 2, 5, 4])
    mask = np.arange(5) < lengths[:, None]
    tokens = np.where(mask, generator.integers(1, 50, mask.shape), 0)
    sound = {
        name: generator.normal(size=(14, 6, size)).astype(np.float32) for name, size in (("audio", 3), ("vision", 2))
    }
    steps = {f"{name}_lengths": generator.integers(1, 7, 14) for name in sound}
    steps["audio_lengths"][2] = 0
    whole = {
        "text_bert": np.stack([tokens, mask, 0 * tokens], axis=1).astype(np.float32),
        **sound,
        **steps,
        "id": [f"v{number}$_$1" for number in range(14)],
        "regression_labels": np.clip(generator.normal(size=14), -3, 3),
    }
    parts = {"train": slice(0, 8), "valid": slice(8, 11), "test": slice(11, 14)}
    path = tmp_path_factory.mktemp("mosi") / "mosi.pkl"
    path.write_bytes(
        pickle.dumps({part: {key: each[rows] for key, each in whole.items()} for part, rows in parts.items()})
    )
    return path


@pytest.fixture(scope="session")
def settings(mosi: Path, bert_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """`settings(name=value, ...)`: a file of the experiment, but for dotted overrides."""
    from anysubset.experiments.files import write_experiment

    def write(**overrides: Any) -> Path:
        given = {**FIT, "data.root": str(mosi), "method.bert": str(bert_folder), **overrides}
        path = tmp_path_factory.mktemp("settings") / "bert.yaml"
        write_experiment(read_experiment(None, given), path)
        return path

    return write


@pytest.fixture(scope="session")
def trained(settings: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run folder of two steps of GMD. Not to be written to."""
    run = tmp_path_factory.mktemp("trained_bert") / "run"
    assert cli.main(["fit", str(settings()), "--run", str(run)]) == 0
    return run


def tensors_of(run: Path) -> dict[str, torch.Tensor]:
    return tensor_file.load(run / "checkpoints/latest.safetensors")[0]


# -------------------------------------------------------------------------------------------------- from end to end


def test_a_bert_is_trained_scored_and_asked(told, trained, mosi, tmp_path):
    run = Path(shutil.copytree(trained, tmp_path / "run"))
    assert {name: each.kind for name, each in read_signature(run / "signature.safetensors").streams.items()} == {
        "text": "tokens",
        "audio": "sequence",
        "vision": "sequence",
    }
    # Token ids have neither mean nor deviation.
    assert not [name for name in tensor_file.load(run / "signature.safetensors")[0] if name.startswith("text")]
    told("evaluate", run)
    with (run / "scores.csv").open(newline="") as file:
        scored = {row["scenario"] for row in csv.DictReader(file) if row["metric"] == "mae"}
    assert scored == {scenario_name(each) for each in all_scenarios(NAMES)}
    out = told("predict", run, mosi, "--output", tmp_path / "answers")
    assert "12 from text, audio, vision" in out
    assert "1 from audio, vision" in out
    assert "1 from text, vision" in out


def test_a_converted_table_trains_to_the_same_bits(told, trained, settings, mosi, tmp_path):
    output = tmp_path / "mosi.npz"
    names = "--reading.modalities={'text': 'text_bert', 'audio': 'audio', 'vision': 'vision'}"
    assert "(text 13, audio 13, vision 14)" in told("convert", mosi, names, "--output", output)
    new = settings(**{"data.root": str(output), "data.reading.modalities": None})
    told("fit", new, "--run", tmp_path / "run")
    first, second = tensors_of(trained), tensors_of(tmp_path / "run")
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_the_learning_rate_of_bert_is_its_own(told, trained, settings, bert_folder, tmp_path):
    # Adam's first step moves each weight that has a gradient by its rate, but for decay: here there is none.
    off = {"train.steps": 1, "train.weight_decay": 0.0, "train.schedule": "constant", "method.name": "full"}
    told("fit", settings(**off), "--run", tmp_path / "run")
    before = stored(bert_folder)
    after = tensor_file.without_prefix("method.network.stems.text.bert.", tensors_of(tmp_path / "run"))
    moved = {name: (value - before[name]).abs().max().item() for name, value in after.items()}
    assert moved["encoder.layer.0.output.dense.weight"] == pytest.approx(2e-5, rel=0.02)
    assert max(moved.values()) < 1.02 * 2e-5
    entry = (tmp_path / "run/metrics.jsonl").read_text().splitlines()[0]
    assert '"lr": 0.001' in entry


def stored(folder: Path) -> dict[str, torch.Tensor]:

    return load_file(folder / "model.safetensors")


def test_a_resumed_run_ends_with_the_same_bits(told, settings, tmp_path, stopped_before):
    longer = settings(**{"train.steps": 4, "train.schedule": "cosine", "train.micro_batches": 2})
    told("fit", longer, "--run", tmp_path / "whole")
    with stopped_before(3):
        assert cli.main(["fit", str(longer), "--run", str(tmp_path / "stopped")]) == 130
    # BERT may lie elsewhere by now: its weights are in the checkpoint.
    moved = shutil.copytree(read_experiment(longer).method["bert"], tmp_path / "moved")
    out = told("fit", longer, "--run", tmp_path / "stopped", "--resume", "--method.bert", moved)
    assert "4 steps" in out
    first, second = tensors_of(tmp_path / "whole"), tensors_of(tmp_path / "stopped")
    assert any(name.startswith("optimizer.") for name in first)
    assert set(first) == set(second)
    assert all(torch.equal(first[name], second[name]) for name in first)


# ------------------------------------------------------------------------------------------------------ the network


def task_of_tokens(**more: Any) -> Prediction:
    streams = {"text": Stream("tokens", 1), "audio": Stream("sequence", 74), "vision": Stream("sequence", 35)}
    return Prediction(NAMES, streams, **more)


def batch() -> Batch:
    """Three samples; 1 has no text, and wants what the others do not."""
    generator = torch.Generator().manual_seed(4)
    inputs = {name: Observed(torch.randn(3, 4, size, generator=generator), torch.arange(3), torch.ones(3, 4).bool())
              for name, size in (("audio", 74), ("vision", 35))}  # fmt: skip
    tokens = torch.tensor([[2, 7, 3, 0], [2, 9, 8, 3]])
    inputs["text"] = Observed(tokens, torch.tensor([0, 2]), tokens != 0)
    return Batch(inputs, torch.tensor([1.0, -9.0, 1.0]), ("a", "b", "c"))


def test_the_network_has_the_size_of_the_reference(bert_folder):
    network = sharing_network(task_of_tokens(), bert=str(bert_folder))
    # P1 with 768/74/35 at d = 128 has 1,136,641, of them 3 x 768 x 128 in the convolution of text, in whose place are
    # 16 x 128 of a linear layer; and BERT has 2,752.
    assert sum(each.numel() for each in network.parameters()) == 1_136_641 - 3 * 768 * 128 + 16 * 128 + 2_752
    # What is shared is as in P1: 791,040 of the backbone and 385 of the head.
    assert sum(each.numel() for each in network.shared_parameters()) == 791_040 + 385


def test_bert_is_differentiated_once_a_step_for_the_weighted_loss(bert_folder):
    torch.manual_seed(0)
    task = task_of_tokens(error="mse")
    options = {"bert": str(bert_folder), "width": 8, "layers": 1, "dropout": 0.0, "cases": "all"}
    method, update = create_method("gmd", task, options)
    bert = method.network.stems["text"].bert.eval()  # Without dropout, which would be drawn again below.
    parameters = dict(bert.named_parameters())
    assert not {id(each) for each in update.gmd.shared} & {id(each) for each in parameters.values()}
    passes: list[int] = []

    def count(module, inputs, output):
        output.last_hidden_state.register_hook(lambda gradient: passes.append(1))

    handle = bert.register_forward_hook(count)
    step = Step(cases=method.draw(torch.Generator()))
    gradients = fill_gradients(method, update, [batch()], step)
    assert len(gradients.totals) == len(all_scenarios(NAMES)) == 7
    coefficients = gradients.decoupling.coefficients
    assert passes == [1]
    handle.remove()
    # By hand, with autograd alone: the mean of the cases' losses, each times its coefficient.
    again = method.losses(batch(), step)
    weighted = sum(coefficients[case] * loss for case, loss in again.items()) / 7
    assert {id(each) for each in parameters.values()} <= {id(each) for each in leaves([weighted])}
    for (name, parameter), right in zip(
        parameters.items(), torch.autograd.grad(weighted, list(parameters.values())), strict=True
    ):
        assert parameter.grad is not None
        assert_close(parameter.grad, right, rtol=1e-4, atol=1e-7, msg=name)
    assert max(coefficients.values()) > 1  # Otherwise the coefficients would not show.


def test_without_text_bert_is_not_asked(bert_folder):
    method = create_method("gmd", task_of_tokens(), {"bert": str(bert_folder), "width": 8, "layers": 1})[0].eval()
    whole = batch().inputs
    asked: list[int] = []
    method.network.stems["text"].bert.register_forward_hook(lambda *given: asked.append(1))
    method.predict({name: whole[name] for name in ("audio", "vision")})
    assert asked == []
    method.predict(whole)
    assert asked == [1]


# -------------------------------------------------------------------------------------------------------- faults


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        ({"method.bert": None}, "Token ids need a BERT: set method.bert"),
        ({"method.bert": "nowhere"}, "nowhere is not there"),
        ({"method.preset": "ds-transformer"}, "kind sequence; 'text' is of kind tokens, which is for: bert"),
        ({"data.modalities": ["vision"], "data.reading.modalities": None}, "'ds-transformer' has no bert to choose"),
        (
            {"data.modalities": ["vision"], "data.reading.modalities": None, "method.preset": "bert"},
            "no modality holds",
        ),
    ],
)  # fmt: skip
def test_settings_that_do_not_fit_are_refused(refused, settings, tmp_path, overrides, said):
    assert said in refused("fit", settings(**overrides), "--run", tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_tokens_that_bert_does_not_know_are_refused(refused, settings, mosi, bert_folder, tmp_path):
    for size, message in (("vocab_size", "text has token"), ("max_position_embeddings", "text has 5 tokens")):
        small = Path(shutil.copytree(bert_folder, tmp_path / size))
        config = json.loads((small / "config.json").read_text())
        (small / "config.json").write_text(json.dumps({**config, size: 4}))
        tensors = load_file(small / "model.safetensors")
        table = {"vocab_size": "word_embeddings", "max_position_embeddings": "position_embeddings"}[size]
        (name,) = [name for name in tensors if name.endswith(f"{table}.weight")]
        save_file({**tensors, name: tensors[name][:4].clone()}, small / "model.safetensors", {"format": "pt"})
        assert message in refused("fit", settings(**{"method.bert": str(small)}), "--run", tmp_path / "run")
        assert not (tmp_path / "run").exists()


def test_a_run_whose_bert_is_gone_says_so(refused, trained, tmp_path):
    run = Path(shutil.copytree(trained, tmp_path / "run"))
    path = run / "experiment.yaml"
    found = read_experiment(path).method["bert"]
    assert found is not None
    path.write_text(path.read_text().replace(found, "/gone"))
    assert "/gone is not there" in refused("evaluate", run)


def test_other_kinds_of_text_are_refused_by_the_run(refused, trained, utterances, tmp_path):
    # The file has `text` of floats, which the run reads as `text_bert`; renamed, it is there and does not fit.
    with np.load(utterances) as arrays:
        renamed = {name.replace("text", "text_bert"): each for name, each in arrays.items()}
    renamed["audio"] = np.zeros((14, 5, 3), np.float32)
    np.savez(tmp_path / "renamed.npz", **renamed)
    line = refused("predict", trained, tmp_path / "renamed.npz", "--output", tmp_path / "answers")
    assert "text is of kind sequence and size 3; the run was trained on kind tokens and size 1" in line
