"""The command line with pretrained encoders from local folders: fine-tuned, and frozen with states that are kept."""

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
from anysubset.methods.cases import call_directly
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
        values = {**FIT, "data.root": str(mosi), "method.encoders": {"text": str(bert_folder)}, **overrides}
        path = tmp_path_factory.mktemp("settings") / "encoders.yaml"
        write_experiment(read_experiment(None, values), path)
        return path

    return write


@pytest.fixture(scope="session")
def trained(settings: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run folder of two steps of GMD. Tests must not change it."""
    run = tmp_path_factory.mktemp("trained_encoder") / "run"
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
    after = tensor_file.without_prefix("method.network.stems.text.pretrained.", tensors_of(tmp_path / "run"))
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
    moved = shutil.copytree(read_experiment(longer).method["encoders"]["text"], tmp_path / "moved")
    out = output_of("fit", longer, "--run", tmp_path / "stopped", "--resume", "--method.encoders.text", moved)
    assert "4 steps" in out
    first, second = tensors_of(tmp_path / "whole"), tensors_of(tmp_path / "stopped")
    assert any(name.startswith("optimizer.") for name in first)
    assert set(first) == set(second)
    assert all(torch.equal(first[name], second[name]) for name in first)


# --------------------------------------------------------------------------------- three encoders, frozen or trained


@pytest.fixture(scope="session")
def raw(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """8 training, 3 validation and 3 test samples of token ids, waveforms and images. Tests must not change it.

    Sample 1 has no text, sample 2 no audio, sample 3 no vision.
    """
    generator = np.random.default_rng(6)
    present = {name: np.arange(14) != missing for missing, name in enumerate(NAMES, start=1)}
    path = tmp_path_factory.mktemp("raw") / "raw.npz"
    np.savez(
        path,
        text=generator.integers(1, 50, (14, 5)),
        text_lengths=generator.integers(1, 6, 14),
        audio=generator.normal(2, 3, (14, 60)).astype(np.float32),
        audio_lengths=generator.integers(16, 61, 14),
        vision=generator.normal(size=(14, 3, 8, 8)).astype(np.float32),
        y=generator.normal(size=14).astype(np.float32),
        split=np.array(["train"] * 8 + ["val"] * 3 + ["test"] * 3),
        **{f"{name}_present": flags for name, flags in present.items()},
    )
    return path


@pytest.fixture(scope="session")
def on_raw(raw: Path, bert_folder, speech_folder, image_folder, tmp_path_factory) -> Callable[..., Path]:
    """`on_raw(**{name: value})` writes an experiment file on raw inputs with three encoders."""
    from anysubset.experiments.files import write_experiment

    folders = {"text": str(bert_folder), "audio": str(speech_folder), "vision": str(image_folder)}
    common = {**FIT, "data.name": "table", "data.root": str(raw), "data.as_stored": ["vision"]}
    common = {**common, "data.reading.modalities": None, "method.encoders": folders}

    def write(**overrides: Any) -> Path:
        path = tmp_path_factory.mktemp("settings") / "raw.yaml"
        write_experiment(read_experiment(None, {**common, **overrides}), path)
        return path

    return write


def pretrained_weights(run: Path, modality: str) -> dict[str, torch.Tensor]:
    """Weights of the encoder of a modality in the latest checkpoint."""
    return tensor_file.without_prefix(f"method.network.stems.{modality}.pretrained.", tensors_of(run))


def predictions(run: Path, table: Path, output_of: Callable[..., str], folder: Path) -> np.ndarray:
    output_of("predict", run, table, "--output", folder)
    with (folder / "predictions.csv").open(newline="") as file:
        return np.array([float(row["prediction"]) for row in csv.DictReader(file)])


def test_three_encoders_are_trained_or_frozen_and_predict_every_scenario(output_of, on_raw, raw, tmp_path):
    out = output_of("fit", on_raw(**{"method.frozen": ["audio"]}), "--run", tmp_path / "run")
    assert "computing the states of 8 training samples once: frozen audio" in out
    signature = tensor_file.load(tmp_path / "run/signature.safetensors")
    streams = {name: stream["kind"] for name, stream in signature[1]["streams"].items()}
    assert streams == {"text": "tokens", "audio": "waveform", "vision": "image"}
    # Pixels as they are stored: mean 0 and deviation 1; waveforms are not standardised.
    assert {name: value.unique().tolist() for name, value in signature[0].items()} == {
        "vision.mean": [0.0],
        "vision.deviation": [1.0],
    }
    folders = read_experiment(tmp_path / "run/experiment.yaml").method["encoders"]
    changed = {}
    for modality, folder in folders.items():
        before = stored(Path(folder))
        after = pretrained_weights(tmp_path / "run", modality)
        changed[modality] = any(not torch.equal(before[name], value) for name, value in after.items())
    assert changed == {"text": True, "audio": False, "vision": True}
    output_of("evaluate", tmp_path / "run")
    with (tmp_path / "run/scores.csv").open(newline="") as file:
        scored = {row["scenario"] for row in csv.DictReader(file) if row["metric"] == "mae"}
    assert scored == {scenario_name(scenario) for scenario in all_scenarios(NAMES)}
    assert np.isfinite(predictions(tmp_path / "run", raw, output_of, tmp_path / "predictions")).all()


def test_with_kept_states_each_sample_is_encoded_once(output_of, on_raw, raw, tmp_path, monkeypatch):
    from anysubset.models.pretrained import PixelEncoder, TokenEncoder, WaveformEncoder

    rows: dict[str, int] = {}
    for encoder in (TokenEncoder, WaveformEncoder, PixelEncoder):

        def counted(self, x, valid, kind=encoder.kind, states=encoder.states):
            rows[kind] = rows.get(kind, 0) + len(x)
            return states(self, x, valid)

        monkeypatch.setattr(encoder, "states", counted)
    frozen = {"method.frozen": list(NAMES), "train.steps": 4, "train.batch": 8}
    output_of("fit", on_raw(**frozen), "--run", tmp_path / "kept")
    # 8 training and 3 validation samples; one training sample lacks each modality. The first image is run once more to
    # see how many states it has.
    assert rows == {"tokens": 10, "waveform": 10, "image": 11}
    rows.clear()
    output_of("fit", on_raw(**frozen, **{"method.keep_states": False}), "--run", tmp_path / "anew")
    assert rows["tokens"] >= 4 * 7  # Every step.
    first, second = (
        predictions(tmp_path / name, raw, output_of, tmp_path / f"{name}_csv") for name in ("kept", "anew")
    )
    np.testing.assert_allclose(first, second, rtol=1e-4, atol=1e-5)
    # The FLOPs of a step are those of training, without those of the encoders.
    flops = [
        json.loads((tmp_path / name / "cost.json").read_text())["stages"]["train"]["flops"] for name in ("kept", "anew")
    ]
    assert max(flops[0]) < min(flops[1])


@pytest.mark.slow
def test_a_resumed_run_with_kept_states_ends_with_the_same_bits(output_of, on_raw, tmp_path, stopped_before):
    settings = on_raw(**{"train.steps": 4, "method.frozen": list(NAMES)})
    output_of("fit", settings, "--run", tmp_path / "whole")
    with stopped_before(3):
        assert cli.main(["fit", str(settings), "--run", str(tmp_path / "stopped")]) == 130
    output_of("fit", settings, "--run", tmp_path / "stopped", "--resume")
    first, second = tensors_of(tmp_path / "whole"), tensors_of(tmp_path / "stopped")
    assert set(first) == set(second)
    assert all(torch.equal(first[name], second[name]) for name in first)


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        ({"method.encoders": {"text": "{audio}", "audio": "{text}", "vision": "{vision}"}}, "and not token ids"),
        ({"data.as_stored": ["video"]}, "Unknown modality of data.as_stored 'video'. Did you mean 'vision'"),
        ({"method.frozen": ["video"]}, "Unknown modality of method.frozen 'video'"),
        ({"method.encoders": None, "method.preset": "vectors"}, "'text' is of kind tokens, which these presets take"),
    ],
)  # fmt: skip
def test_encoders_that_do_not_fit_their_modality_are_refused(refused, on_raw, tmp_path, overrides, said):
    folders = read_experiment(on_raw()).method["encoders"]
    if overrides.get("method.encoders"):
        chosen = {name: folder.format(**folders) for name, folder in overrides["method.encoders"].items()}
        overrides = {"method.encoders": chosen}
    assert said in refused("fit", on_raw(**overrides), "--run", tmp_path / "run")
    assert not (tmp_path / "run").exists()


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
    network = sharing_network(task_of_tokens(), encoders={"text": str(bert_folder)})
    # P1 with 768/74/35 at d = 128 has 1,136,641 parameters. The 3 x 768 x 128 of the convolution of text are replaced
    # by the 16 x 128 of a linear layer, and BERT adds 2,752.
    assert sum(parameter.numel() for parameter in network.parameters()) == 1_136_641 - 3 * 768 * 128 + 16 * 128 + 2_752
    # Shared as in P1: 791,040 of the backbone and 385 of the head.
    assert sum(parameter.numel() for parameter in network.shared_parameters()) == 791_040 + 385


def test_bert_is_differentiated_once_per_step_for_the_weighted_loss(bert_folder):
    torch.manual_seed(0)
    task = task_of_tokens(error="mse")
    options = {"encoders": {"text": str(bert_folder)}, "width": 8, "layers": 1, "dropout": 0.0, "cases": "all"}
    method, update = create_method("gmd", task, options)
    bert = method.network.stems["text"].pretrained.eval()  # No dropout: it would be drawn again below.
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
    method.call_encoder = call_directly  # Without detached branches.
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
    method = create_method("gmd", task_of_tokens(), {"encoders": {"text": str(bert_folder)}, "width": 8, "layers": 1})[
        0
    ].eval()
    whole = batch().inputs
    calls: list[int] = []
    method.network.stems["text"].pretrained.register_forward_hook(lambda *_: calls.append(1))
    method.predict({name: whole[name] for name in ("audio", "vision")})
    assert calls == []
    method.predict(whole)
    assert calls == [1]


# -------------------------------------------------------------------------------------------------------- faults


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        ({"method.encoders": None}, "needs a pretrained encoder: set method.encoders.text"),
        ({"method.encoders": {"text": "nowhere"}}, "nowhere does not exist"),
        ({"method.preset": "ds-transformer"}, "'text' is of kind tokens, which these presets take: pretrained"),
        (
            {"data.modalities": ["vision"], "data.reading.modalities": None, "method.preset": "ds-transformer"},
            "'ds-transformer' has no option encoders",
        ),
        (
            {"data.modalities": ["vision"], "data.reading.modalities": None},
            "Unknown modality of method.encoders 'text'",
        ),
    ],
)  # fmt: skip
def test_settings_that_do_not_fit_the_inputs_are_refused(refused, settings, tmp_path, overrides, said):
    assert said in refused("fit", settings(**overrides), "--run", tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_tokens_outside_the_vocabulary_or_length_of_the_encoder_are_refused(
    refused, settings, mosi, bert_folder, tmp_path
):
    for size, message in (("vocab_size", "text has token"), ("max_position_embeddings", "text has 5 tokens")):
        small = Path(shutil.copytree(bert_folder, tmp_path / size))
        config = json.loads((small / "config.json").read_text())
        (small / "config.json").write_text(json.dumps({**config, size: 4}))
        tensors = load_file(small / "model.safetensors")
        table = {"vocab_size": "word_embeddings", "max_position_embeddings": "position_embeddings"}[size]
        (name,) = [name for name in tensors if name.endswith(f"{table}.weight")]
        save_file({**tensors, name: tensors[name][:4].clone()}, small / "model.safetensors", {"format": "pt"})
        assert message in refused(
            "fit", settings(**{"method.encoders": {"text": str(small)}}), "--run", tmp_path / "run"
        )
        assert not (tmp_path / "run").exists()


def test_a_run_without_the_folder_of_its_encoder_is_refused(refused, trained, tmp_path):
    run = Path(shutil.copytree(trained, tmp_path / "run"))
    path = run / "experiment.yaml"
    folder = read_experiment(path).method["encoders"]["text"]
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
