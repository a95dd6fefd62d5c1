"""The command line on token ids: tables with token ids, a BERT from a local folder, and its fine-tuning."""

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
from anysubset.methods.creation import create_method
from anysubset.methods.method import Step
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
    """8 training, 3 validation and 3 test utterances in MMSA's layout. Tests must not change it.

    Sentences have 2 to 5 tokens; utterance 1 has no words, utterance 2 no audio.
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
        pickle.dumps({part: {key: values[rows] for key, values in whole.items()} for part, rows in parts.items()})
    )
    return path


@pytest.fixture(scope="session")
def settings(mosi: Path, bert_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """`settings(**{name: value})` writes an experiment file with these dotted settings over the defaults above."""
    from anysubset.experiments.files import write_experiment

    def write(**overrides: Any) -> Path:
        values = {**FIT, "data.root": str(mosi), "method.bert": str(bert_folder), **overrides}
        path = tmp_path_factory.mktemp("settings") / "bert.yaml"
        write_experiment(read_experiment(None, values), path)
        return path

    return write


@pytest.fixture(scope="session")
def trained(settings: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run folder of two steps of GMD. Tests must not change it."""
    run = tmp_path_factory.mktemp("trained_bert") / "run"
    assert cli.main(["fit", str(settings()), "--run", str(run)]) == 0
    return run


def tensors_of(run: Path) -> dict[str, torch.Tensor]:
    return tensor_file.load(run / "checkpoints/latest.safetensors")[0]


# -------------------------------------------------------------------------------------------------- from end to end


def test_bert_is_trained_and_predicts_every_scenario(output_of, trained, mosi, tmp_path):
    run = Path(shutil.copytree(trained, tmp_path / "run"))
    streams = read_signature(run / "signature.safetensors").streams
    assert {name: stream.kind for name, stream in streams.items()} == {
        "text": "tokens",
        "audio": "sequence",
        "vision": "sequence",
    }
    # Token ids are not standardised: no mean, no deviation.
    assert not [name for name in tensor_file.load(run / "signature.safetensors")[0] if name.startswith("text")]
    output_of("evaluate", run)
    with (run / "scores.csv").open(newline="") as file:
        scored = {row["scenario"] for row in csv.DictReader(file) if row["metric"] == "mae"}
    assert scored == {scenario_name(scenario) for scenario in all_scenarios(NAMES)}
    out = output_of("predict", run, mosi, "--output", tmp_path / "predictions")
    assert "12 from text, audio, vision" in out
    assert "1 from audio, vision" in out
    assert "1 from text, vision" in out


def test_a_converted_table_trains_to_the_same_bits(output_of, trained, settings, mosi, tmp_path):
    output = tmp_path / "mosi.npz"
    names = "--reading.modalities={'text': 'text_bert', 'audio': 'audio', 'vision': 'vision'}"
    assert "(text 13, audio 13, vision 14)" in output_of("convert", mosi, names, "--output", output)
    new = settings(**{"data.root": str(output), "data.reading.modalities": None})
    output_of("fit", new, "--run", tmp_path / "run")
    first, second = tensors_of(trained), tensors_of(tmp_path / "run")
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_bert_has_its_own_learning_rate(output_of, trained, settings, bert_folder, tmp_path):
    # Adam's first step changes every weight that has a gradient by the learning rate, without weight decay.
    off = {"train.steps": 1, "train.weight_decay": 0.0, "train.schedule": "constant", "method.name": "full"}
    output_of("fit", settings(**off), "--run", tmp_path / "run")
    before = stored(bert_folder)
    after = tensor_file.without_prefix("method.network.stems.text.bert.", tensors_of(tmp_path / "run"))
    moved = {name: (value - before[name]).abs().max().item() for name, value in after.items()}
    assert moved["encoder.layer.0.output.dense.weight"] == pytest.approx(2e-5, rel=0.02)
    assert max(moved.values()) < 1.02 * 2e-5
    entry = (tmp_path / "run/metrics.jsonl").read_text().splitlines()[0]
    assert '"lr": 0.001' in entry


def stored(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "model.safetensors")


def test_a_resumed_run_ends_with_the_same_bits(output_of, settings, tmp_path, stopped_before):
    longer = settings(**{"train.steps": 4, "train.schedule": "cosine", "train.micro_batches": 2})
    output_of("fit", longer, "--run", tmp_path / "whole")
    with stopped_before(3):
        assert cli.main(["fit", str(longer), "--run", str(tmp_path / "stopped")]) == 130
    # The folder of BERT may be moved: the weights are in the checkpoint.
    moved = shutil.copytree(read_experiment(longer).method["bert"], tmp_path / "moved")
    out = output_of("fit", longer, "--run", tmp_path / "stopped", "--resume", "--method.bert", moved)
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
    """Three samples; sample 1 has no text, and its target is far from the others', so cases conflict."""
    generator = torch.Generator().manual_seed(4)
    inputs = {name: Observed(torch.randn(3, 4, size, generator=generator), torch.arange(3), torch.ones(3, 4).bool())
              for name, size in (("audio", 74), ("vision", 35))}  # fmt: skip
    tokens = torch.tensor([[2, 7, 3, 0], [2, 9, 8, 3]])
    inputs["text"] = Observed(tokens, torch.tensor([0, 2]), tokens != 0)
    return Batch(inputs, torch.tensor([1.0, -9.0, 1.0]), ("a", "b", "c"))


def test_the_network_has_the_parameters_of_the_reference(bert_folder):
    network = sharing_network(task_of_tokens(), bert=str(bert_folder))
    # P1 with 768/74/35 at d = 128 has 1,136,641 parameters. The 3 x 768 x 128 of the convolution of text are replaced
    # by the 16 x 128 of a linear layer, and BERT adds 2,752.
    assert sum(parameter.numel() for parameter in network.parameters()) == 1_136_641 - 3 * 768 * 128 + 16 * 128 + 2_752
    # Shared as in P1: 791,040 of the backbone and 385 of the head.
    assert sum(parameter.numel() for parameter in network.shared_parameters()) == 791_040 + 385


def test_bert_is_differentiated_once_per_step_for_the_weighted_loss(bert_folder):
    torch.manual_seed(0)
    task = task_of_tokens(error="mse")
    options = {"bert": str(bert_folder), "width": 8, "layers": 1, "dropout": 0.0, "cases": "all"}
    method, update = create_method("gmd", task, options)
    bert = method.network.stems["text"].bert.eval()  # No dropout: it would be drawn again below.
    parameters = dict(bert.named_parameters())
    assert not {id(shared) for shared in update.gmd.shared} & {id(parameter) for parameter in parameters.values()}
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
    # With autograd only: the gradient of the mean over the cases of coefficient times loss.
    again = method.losses(batch(), step)
    weighted = sum(coefficients[case] * loss for case, loss in again.items()) / 7
    assert {id(parameter) for parameter in parameters.values()} <= {id(leaf) for leaf in leaves([weighted])}
    for (name, parameter), right in zip(
        parameters.items(), torch.autograd.grad(weighted, list(parameters.values())), strict=True
    ):
        assert parameter.grad is not None
        assert_close(parameter.grad, right, rtol=1e-4, atol=1e-7, msg=name)
    assert max(coefficients.values()) > 1  # Otherwise a plain mean would pass, too.


def test_bert_is_not_called_without_text(bert_folder):
    method = create_method("gmd", task_of_tokens(), {"bert": str(bert_folder), "width": 8, "layers": 1})[0].eval()
    whole = batch().inputs
    calls: list[int] = []
    method.network.stems["text"].bert.register_forward_hook(lambda *_: calls.append(1))
    method.predict({name: whole[name] for name in ("audio", "vision")})
    assert calls == []
    method.predict(whole)
    assert calls == [1]


# -------------------------------------------------------------------------------------------------------- faults


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        ({"method.bert": None}, "Token ids need a BERT: set method.bert"),
        ({"method.bert": "nowhere"}, "nowhere does not exist"),
        ({"method.preset": "ds-transformer"}, "'text' is of kind tokens, which these presets take: bert"),
        ({"data.modalities": ["vision"], "data.reading.modalities": None}, "'ds-transformer' has no option bert"),
        (
            {"data.modalities": ["vision"], "data.reading.modalities": None, "method.preset": "bert"},
            "needs a modality of token ids",
        ),
    ],
)  # fmt: skip
def test_settings_that_do_not_fit_the_inputs_are_refused(refused, settings, tmp_path, overrides, said):
    assert said in refused("fit", settings(**overrides), "--run", tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_tokens_outside_the_vocabulary_or_length_of_bert_are_refused(refused, settings, mosi, bert_folder, tmp_path):
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


def test_a_run_without_its_bert_folder_is_refused(refused, trained, tmp_path):
    run = Path(shutil.copytree(trained, tmp_path / "run"))
    path = run / "experiment.yaml"
    folder = read_experiment(path).method["bert"]
    assert folder is not None
    path.write_text(path.read_text().replace(folder, "/gone"))
    assert "/gone does not exist" in refused("evaluate", run)


def test_a_run_on_token_ids_refuses_vectors_of_text(refused, trained, utterances, tmp_path):
    # The run reads `text` from the array `text_bert`; here this array holds float vectors.
    with np.load(utterances) as arrays:
        renamed = {name.replace("text", "text_bert"): array for name, array in arrays.items()}
    renamed["audio"] = np.zeros((14, 5, 3), np.float32)
    np.savez(tmp_path / "renamed.npz", **renamed)
    line = refused("predict", trained, tmp_path / "renamed.npz", "--output", tmp_path / "predictions")
    assert "text is of kind sequence and size 3; the run was trained on kind tokens and size 1" in line
