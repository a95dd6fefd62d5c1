"""Encoders from folders of Hugging Face, on models of one layer with random weights."""

import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.testing import assert_close

from anysubset.batches import Observed
from anysubset.errors import InputError
from anysubset.models import pretrained
from anysubset.models.encoders import sinusoids
from anysubset.models.pretrained import ENCODERS, PixelEncoder, PretrainedEncoder, TokenEncoder, WaveformEncoder
from anysubset.models.pretrained_folder import quiet, read_model

TOKENS = torch.tensor([[2, 7, 9, 3, 0], [2, 3, 0, 0, 0], [2, 4, 5, 6, 3]])
VALID = torch.arange(5) < torch.tensor([[4], [2], [5]])
# Sizes of all models here.
SIZES = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}


@pytest.fixture
def encoder(bert_folder: Path) -> TokenEncoder:
    """Width 8, in double precision and without dropout."""
    torch.manual_seed(0)
    return TokenEncoder(str(bert_folder), 8).double().eval()


@pytest.fixture
def speech(speech_folder: Path) -> WaveformEncoder:
    """Width 8, in double precision and without dropout."""
    torch.manual_seed(0)
    return WaveformEncoder(str(speech_folder), 8).double().eval()


@pytest.fixture
def copied(bert_folder: Path, tmp_path: Path) -> Path:
    """A writable copy of the folder of the BERT."""
    return Path(shutil.copytree(bert_folder, tmp_path / "bert"))


def count(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def waveforms(*lengths: int) -> tuple[Tensor, Tensor]:
    """Waveforms of these lengths around 3, padded at the end with 0, and which of their values are real."""
    valid = torch.arange(max(lengths)) < torch.tensor(lengths)[:, None]
    values = torch.randn(valid.shape, generator=torch.Generator().manual_seed(5), dtype=torch.float64)
    return (3 + values).where(valid, 0), valid


# ------------------------------------------------------------------------------------------------------- token ids


def test_the_last_states_are_projected_after_a_learned_token(encoder: TokenEncoder):
    steps = encoder(TOKENS[2:])
    # By hand: last hidden states, linear, the learned token in front, plus the encodings of positions 0, 1, ...
    states = encoder.pretrained(input_ids=TOKENS[2:]).last_hidden_state[0]
    weight, bias = encoder.steps.convolution.weight[:, :, 0], encoder.steps.convolution.bias
    x = torch.cat([encoder.steps.token[None], states @ weight.T + bias]) + sinusoids(torch.arange(6), 8)
    assert_close(steps.values[0], encoder.steps.norm(x))
    assert steps.valid.tolist() == [[True] * 6]


def test_a_sentence_has_the_same_states_alone_as_in_a_batch(encoder: TokenEncoder):
    together = encoder(TOKENS, VALID)
    assert together.values.shape == (3, 6, 8)
    for row, length in enumerate((4, 2, 5)):
        alone = encoder(TOKENS[row : row + 1, :length])
        assert_close(together.values[row, : length + 1], alone.values[0])
        assert together.valid[row].tolist() == [True] * (length + 1) + [False] * (5 - length)


@pytest.mark.parametrize("filler", [0, 49, -1, 10**9])
def test_the_values_of_padded_tokens_do_not_change_states_or_gradients(encoder: TokenEncoder, filler: int):
    def learn(tokens: Tensor) -> tuple[Tensor, dict[str, Tensor | None]]:
        encoder.zero_grad()
        steps = encoder(tokens, VALID)
        steps.values[:, 0].sum().backward()
        steps = encoder(tokens, VALID)
        steps.values[steps.valid].square().sum().backward()
        return steps.values.detach(), {name: parameter.grad for name, parameter in encoder.named_parameters()}

    values, gradients = learn(TOKENS)
    poisoned, others = learn(TOKENS.where(VALID, filler))
    assert torch.equal(values, poisoned)
    for name, gradient in gradients.items():
        assert gradient is not None
        assert torch.equal(gradient, others[name]), name


def test_padding_in_front_gives_the_same_states(encoder: TokenEncoder):
    front = encoder(torch.tensor([[0, 0, 2, 7, 3]]), torch.tensor([[False, False, True, True, True]]))
    end = encoder(torch.tensor([[2, 7, 3]]))
    assert_close(front.values[0, front.valid[0]], end.values[0])


def test_inputs_that_are_not_integers_of_two_dimensions_are_refused(encoder: TokenEncoder):
    with pytest.raises(InputError, match=r"not torch.float32 of shape \(3, 5\)"):
        encoder(TOKENS.float())
    with pytest.raises(InputError, match=r"of shape \(3, 5, 2\)"):
        encoder(TOKENS[:, :, None].expand(3, 5, 2))
    with pytest.raises(InputError, match=r"\(3, 5\) came with valid steps of shape \(3, 4\)"):
        encoder(TOKENS, VALID[:, :4])


# -------------------------------------------------------------------------------------------------------- waveforms


def test_a_waveform_has_a_state_for_each_frame_after_scaling(speech: WaveformEncoder):
    x, _ = waveforms(40)
    steps = speech(x)
    # By hand: (40 - 8) // 4 + 1 = 9 frames after the first convolution, (9 - 3) // 2 + 1 = 4 after the second.
    scaled = (x - x.mean()) / (x.var(correction=0) + 1e-7).sqrt()
    states = speech.pretrained(input_values=scaled).last_hidden_state
    assert states.shape == (1, 4, 16)
    assert_close(steps.values, speech.steps(states).values)
    # A louder waveform with an offset has the same states.
    assert_close(speech(5 * x + 2).values, steps.values, rtol=1e-5, atol=1e-5)


def test_a_waveform_has_the_same_states_alone_as_in_a_batch(speech: WaveformEncoder):
    # The norm of the first convolution is over time: with padding in it, states would change by more than rounding.
    x, valid = waveforms(40, 17, 64, 17)
    together = speech(x.where(valid, torch.nan), valid)
    assert together.values.shape == (4, 1 + 7, 8)  # (64 - 8) // 4 + 1 = 15, and (15 - 3) // 2 + 1 = 7.
    for row, (length, frames) in enumerate([(40, 4), (17, 1), (64, 7), (17, 1)]):
        alone = speech(x[row : row + 1, :length])
        assert together.valid[row].sum() == 1 + frames
        assert_close(together.values[row, : 1 + frames], alone.values[0])


def test_waveforms_are_not_scaled_if_the_folder_says_so(speech_folder: Path, tmp_path: Path):
    folder = Path(shutil.copytree(speech_folder, tmp_path / "speech"))
    (folder / "preprocessor_config.json").write_text('{"do_normalize": false}')
    encoder = WaveformEncoder(str(folder), 8).double().eval()
    x, _ = waveforms(40)
    states = encoder.pretrained(input_values=x).last_hidden_state
    assert_close(encoder(x).values, encoder.steps(states).values)
    (folder / "preprocessor_config.json").write_text("[]")
    with pytest.raises(InputError, match=r"preprocessor_config\.json is damaged"):
        WaveformEncoder(str(folder), 8)


def test_training_drops_no_steps_and_no_layers(speech_folder: Path, tmp_path: Path):
    # wav2vec 2.0 masks steps and leaves out layers in training, by numpy's random numbers, which a run does not save.
    folder = Path(shutil.copytree(speech_folder, tmp_path / "speech"))
    dropout = dict.fromkeys(("hidden", "attention", "activation", "feat_proj"), 0.0)
    entries = json.loads((folder / "config.json").read_text()) | {f"{name}_dropout": p for name, p in dropout.items()}
    (folder / "config.json").write_text(json.dumps({**entries, "layerdrop": 1.0, "mask_time_prob": 0.9}))
    speech = WaveformEncoder(str(folder), 8).double()
    x, _ = waveforms(200)
    assert torch.equal(speech.train()(x).values, speech.eval()(x).values)


def test_a_waveform_without_a_frame_is_refused(speech: WaveformEncoder):
    # By hand: two convolutions of 8 and 3 values, the second on every 4th value, need 8 + 2 * 4 = 16.
    x, valid = waveforms(16, 30)
    speech.check_input(Observed(x, torch.arange(2), valid), "audio")
    x, valid = waveforms(15, 30)
    with pytest.raises(InputError, match="audio has a waveform of fewer than 16 values"):
        speech.check_input(Observed(x, torch.arange(2), valid), "audio")
    with pytest.raises(
        InputError, match=r"takes waveforms of shape \(n, time\), not torch.float64 of shape \(2, 30, 1\)"
    ):
        speech(x[..., None])


# ----------------------------------------------------------------------------------------------------------- images


def test_an_image_has_a_state_for_each_patch_and_one_more(image_folder: Path):
    encoder = PixelEncoder(str(image_folder), 8).eval()
    x = torch.randn(2, 3, 8, 8)
    steps = encoder(x)
    assert steps.values.shape == (2, 1 + 1 + 4, 8)  # The learned token, ViT's own, and 2 x 2 patches.
    assert_close(steps.values, encoder.steps(encoder.pretrained(pixel_values=x).last_hidden_state).values)
    observed = Observed(torch.randn(2, 3, 8, 6), torch.arange(2))
    with pytest.raises(InputError, match=r"takes inputs of shape \(n, 3, 8, 8\), not \(2, 3, 8, 6\)"):
        encoder.check_input(observed, "vision")


def test_the_maps_of_a_convolutional_network_are_steps(tmp_path: Path):
    transformers = pytest.importorskip("transformers")
    config = transformers.ResNetConfig(embedding_size=8, hidden_sizes=[8, 16], depths=[1, 1], layer_type="basic")
    with quiet():
        transformers.ResNetModel(config).save_pretrained(tmp_path)
    # 32 pixels, halved by the first layers twice and by the second stage once: 4 x 4 positions.
    assert PixelEncoder(str(tmp_path), 8).eval()(torch.randn(1, 3, 32, 32)).values.shape == (1, 1 + 16, 8)


# ----------------------------------------------------------------------------------------------- frozen, with states


def example(
    kind: str, request: pytest.FixtureRequest, **options: bool
) -> tuple[PretrainedEncoder, Tensor, Tensor | None]:
    """An encoder of this kind, with three inputs."""
    folder = request.getfixturevalue(
        {"tokens": "bert_folder", "waveform": "speech_folder", "image": "image_folder"}[kind]
    )
    torch.manual_seed(0)
    encoder = ENCODERS[kind](str(folder), 8, **options)
    if kind == "tokens":
        return encoder, TOKENS, VALID
    if kind == "image":
        return encoder, torch.randn(3, 3, 8, 8, generator=torch.Generator().manual_seed(2)), None
    x, valid = waveforms(40, 17, 64)
    return encoder, x.float(), valid


@pytest.mark.parametrize("kind", ENCODERS)
def test_the_states_of_a_frozen_encoder_are_computed_once_for_each_sample(kind: str, request):
    encoder, x, valid = example(kind, request, frozen=True)
    sizes: list[int] = []
    encoder.pretrained.register_forward_pre_hook(lambda module, inputs: sizes.append(1))
    first = encoder.train()(x, valid)
    assert len(sizes) == 3
    order = [2, 0, 1, 2]
    again = encoder(x[order], None if valid is None else valid[order])
    assert len(sizes) == 3
    assert torch.equal(again.values[first.valid[order]], first.values[order][first.valid[order]])
    # Without keeping them: the same to rounding, and every call runs the encoder.
    other, *_ = example(kind, request, frozen=True, keep=False)
    assert other.kept_states is None
    anew = other.train()(x, valid)
    assert torch.equal(anew.valid, first.valid)
    assert_close(first.values[first.valid], anew.values[first.valid])


def test_kept_states_do_not_depend_on_the_batch(bert_folder: Path):
    alone, together = (TokenEncoder(str(bert_folder), 8, frozen=True) for _ in range(2))
    assert alone.kept_states is not None
    assert together.kept_states is not None
    batch = together.kept_states.states(TOKENS, VALID)
    single = alone.kept_states.states(TOKENS[1:2, :2], None)
    assert torch.equal(batch.values[1, :2], single.values[0])


@pytest.mark.parametrize("kind", ENCODERS)
def test_a_frozen_encoder_gets_no_gradient_and_the_projection_does(kind: str, request):
    encoder, x, valid = example(kind, request, frozen=True)
    steps = encoder.train()(x, valid)
    assert not encoder.pretrained.training
    assert encoder.training
    steps.values[:, 0].sum().backward()
    steps = encoder(x, valid)
    steps.values.square()[steps.valid].sum().backward()
    assert all(parameter.grad is None for parameter in encoder.pretrained.parameters())
    assert all(parameter.grad is not None for parameter in encoder.steps.parameters())
    trained, *_ = example(kind, request)
    steps = trained(x, valid)
    steps.values.square()[steps.valid].sum().backward()
    assert any(parameter.grad is not None for parameter in trained.pretrained.parameters())


def test_states_are_computed_anew_when_other_weights_are_loaded(bert_folder: Path):
    encoder = TokenEncoder(str(bert_folder), 8, frozen=True)
    before = encoder(TOKENS, VALID).values
    encoder.load_state_dict(encoder.state_dict())
    assert torch.equal(encoder(TOKENS, VALID).values, before)
    assert encoder.kept_states is not None
    assert len(encoder.kept_states.by_input) == 3
    encoder.load_state_dict({name: value + 0.1 for name, value in encoder.state_dict().items()})
    assert not torch.allclose(encoder(TOKENS, VALID).values, before)
    assert len(encoder.kept_states.by_input) == 6


def test_states_that_do_not_fit_into_the_memory_are_refused(bert_folder: Path, monkeypatch):
    observed = Observed(TOKENS, torch.arange(3), VALID)
    monkeypatch.setattr(pretrained, "free_memory", lambda: 4 * 16 * 11)  # 4 + 2 + 5 states of 16 float32.
    TokenEncoder(str(bert_folder), 8, frozen=True).check_input(observed, "text")
    monkeypatch.setattr(pretrained, "free_memory", lambda: 4 * 16 * 11 - 1)
    TokenEncoder(str(bert_folder), 8, frozen=True, keep=False).check_input(observed, "text")
    with pytest.raises(
        InputError, match=r"states of 3 samples of text take 704 bytes .* set method\.keep_states to false"
    ):
        TokenEncoder(str(bert_folder), 8, frozen=True).check_input(observed, "text")


# ----------------------------------------------------------------------------------------------------- the folder


def test_a_bert_is_loaded_without_its_pooling_layer_and_without_output(bert_folder: Path, capfd):
    bert = read_model(str(bert_folder), "tokens")
    # By hand: embeddings of 50 + 12 + 2 with a norm, four linear layers with a norm, two more with a norm.
    assert count(bert) == 64 * 16 + 32 + 4 * (16 * 16 + 16) + 32 + 2 * (16 * 16 + 16) + 32
    stored = load_file(bert_folder / "model.safetensors")
    assert set(stored) - set(bert.state_dict()) == {"pooler.dense.weight", "pooler.dense.bias"}
    assert all(torch.equal(stored[name], value) for name, value in bert.state_dict().items())
    assert bert.training
    assert capfd.readouterr() == ("", "")


def test_weights_stored_in_half_precision_are_loaded_as_float32(copied: Path):
    path = copied / "model.safetensors"
    save_file({name: value.half() for name, value in load_file(path).items()}, path, {"format": "pt"})
    assert {parameter.dtype for parameter in read_model(str(copied), "tokens").parameters()} == {torch.float32}


def test_without_transformers_the_message_says_how_to_install_it(bert_folder: Path, monkeypatch):
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(InputError, match=r"needs the package transformers: pip install -e '\.\[transformers\]'"):
        read_model(str(bert_folder), "tokens")


def test_both_parts_of_clip_are_encoders(tmp_path: Path):
    transformers = pytest.importorskip("transformers")
    text = {**SIZES, "vocab_size": 50, "max_position_embeddings": 12, "bos_token_id": 1, "eos_token_id": 2}
    config = transformers.CLIPConfig(text_config=text, vision_config={**SIZES, "image_size": 8, "patch_size": 4})
    with quiet():
        transformers.CLIPModel(config).save_pretrained(tmp_path)
    assert TokenEncoder(str(tmp_path), 8).eval()(TOKENS, VALID).values.shape == (3, 6, 8)
    assert PixelEncoder(str(tmp_path), 8).eval()(torch.randn(2, 3, 8, 8)).values.shape == (2, 6, 8)
    with pytest.raises(InputError, match="of type 'clip', which takes token ids"):
        WaveformEncoder(str(tmp_path), 8)


def test_roberta_counts_positions_after_that_of_padding(tmp_path: Path):
    transformers = pytest.importorskip("transformers")
    config = transformers.RobertaConfig(**SIZES, vocab_size=50, max_position_embeddings=7)
    with quiet():
        transformers.RobertaModel(config).save_pretrained(tmp_path)
    encoder = TokenEncoder(str(tmp_path), 8).eval()
    # Padding has the id 1, so that positions 2 to 6 are left.
    encoder.check_input(Observed(TOKENS, torch.arange(3), VALID), "text")
    alone, together = encoder(TOKENS[1:2, :2]), encoder(TOKENS, VALID)
    assert_close(together.values[1, :3], alone.values[0])
    with pytest.raises(InputError, match=r"text has 6 tokens; .* takes up to 5"):
        encoder.check_input(Observed(torch.full((1, 6), 3), torch.arange(1)), "text")


def test_a_model_of_another_kind_of_input_is_refused(bert_folder: Path, speech_folder: Path, tmp_path: Path):
    with pytest.raises(InputError, match=r"of type 'bert', which takes token ids \(whole numbers\), and not waveforms"):
        read_model(str(bert_folder), "waveform")
    with pytest.raises(InputError, match=r"of type 'wav2vec2', which takes waveforms \(floats with lengths\), and not"):
        read_model(str(speech_folder), "tokens")
    transformers = pytest.importorskip("transformers")
    spectrograms = transformers.ASTConfig(**SIZES, max_length=32, num_mel_bins=16)
    decoding = transformers.T5Config(d_model=16, d_kv=8, d_ff=16, num_layers=1, num_heads=2, vocab_size=50)
    for config, kind, said in (
        (spectrograms, "waveform", "which takes spectrograms: compute them beforehand"),
        (decoding, "tokens", "which also has a decoder: save its encoder alone"),
    ):
        config.save_pretrained(tmp_path)
        with pytest.raises(InputError, match=said):
            read_model(str(tmp_path), kind)


def config(**changes: object) -> Callable[[Path], None]:
    """Return a function that changes entries of config.json in a folder; None removes an entry."""

    def write(folder: Path) -> None:
        entries = json.loads((folder / "config.json").read_text()) | changes
        (folder / "config.json").write_text(json.dumps({name: value for name, value in entries.items() if value}))

    return write


def without_a_layer(folder: Path) -> None:
    stored = load_file(folder / "model.safetensors")
    reduced = {name: value for name, value in stored.items() if "layer.0.output.dense" not in name}
    save_file(reduced, folder / "model.safetensors", {"format": "pt"})


FAULTS: dict[str, Callable[[Path], object]] = {
    "does not exist": lambda folder: shutil.rmtree(folder),
    "has no config.json": lambda folder: (folder / "config.json").unlink(),
    "config.json": lambda folder: (folder / "config.json").write_text("{"),
    "it lacks model_type": config(model_type=None),
    "hidden_size is 1e+09, and 10,000,000 is the most": config(hidden_size=10**9),
    "num_hidden_layers is 5000, and 200 is the most": config(num_hidden_layers=5000),
    # 4 bytes x 100 layers x (two matrices of 16 x 10^7, and a bias of 10^7).
    "needs 132 GB of memory": config(intermediate_size=10**7, num_hidden_layers=100),
    "does not describe an encoder: ": config(model_type="nosuch"),
    "cannot be read: Error no file named": lambda folder: (folder / "model.safetensors").unlink(),
    "cannot be read: ": lambda folder: (folder / "model.safetensors").write_bytes(b"damaged"),
    "lacks 2 weights, such as encoder.layer.0.output.dense.bias": without_a_layer,
    " cannot be read: You set": config(vocab_size=60),
}


@pytest.mark.parametrize("said", FAULTS)
def test_a_folder_without_a_usable_encoder_is_refused_in_one_line(copied: Path, said: str, capfd):
    FAULTS[said](copied)
    with pytest.raises(InputError) as error:
        read_model(str(copied), "tokens")
    assert said in str(error.value)
    assert str(copied) in str(error.value)
    assert "\n" not in str(error.value)
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(
    "entries",
    [
        *({"hidden_size": "x"}, {"hidden_size": 10**12}, {"hidden_size": 17}, {"vocab_size": -3}, {"vocab_size": 1.5}),
        *({"num_hidden_layers": [1]}, {"num_attention_heads": 10**9}, {"hidden_act": "nosuch"}, {"hidden_act": 3}),
        *({"layer_norm_eps": "x"}, {"hidden_dropout_prob": 7}, {"model_type": 3}, {"model_type": ["bert"]}),
    ],
    ids=str,
)
def test_entries_of_the_configuration_that_no_network_can_have_are_refused(copied: Path, entries, cheap_fault):
    config(**entries)(copied)
    assert str(copied) in cheap_fault(read_model, str(copied), "tokens")


def test_weights_of_nan_are_refused(copied: Path, cheap_fault):
    path = copied / "model.safetensors"
    save_file({name: value * torch.nan for name, value in load_file(path).items()}, path, {"format": "pt"})
    assert "has weights that are NaN or infinite, such as embeddings." in cheap_fault(read_model, str(copied), "tokens")


def test_the_name_of_a_model_is_taken_for_a_folder_and_not_downloaded():
    with pytest.raises(InputError, match="bert-base-uncased does not exist"):
        read_model("bert-base-uncased", "tokens")
