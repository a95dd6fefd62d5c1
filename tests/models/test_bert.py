"""The encoder of token ids, on a BERT of one layer with random weights."""

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

from anysubset.errors import InputError
from anysubset.models.bert import Sizes, TokenEncoder, read_bert, sizes_of
from anysubset.models.encoders import sinusoids

TOKENS = torch.tensor([[2, 7, 9, 3, 0], [2, 3, 0, 0, 0], [2, 4, 5, 6, 3]])
VALID = torch.arange(5) < torch.tensor([[4], [2], [5]])


@pytest.fixture
def encoder(bert_folder: Path) -> TokenEncoder:
    """Width 8, in double precision and without dropout."""
    torch.manual_seed(0)
    return TokenEncoder(str(bert_folder), 8).double().eval()


@pytest.fixture
def copied(bert_folder: Path, tmp_path: Path) -> Path:
    """A writable copy of the folder of the BERT."""
    return Path(shutil.copytree(bert_folder, tmp_path / "bert"))


def count(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


# ----------------------------------------------------------------------------------------------------- forward


def test_the_last_states_are_projected_after_a_learned_token(encoder: TokenEncoder):
    steps = encoder(TOKENS[2:])
    # By hand: last hidden states, linear, the learned token in front, plus the encodings of positions 0, 1, ...
    states = encoder.bert(input_ids=TOKENS[2:]).last_hidden_state[0]
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


# ----------------------------------------------------------------------------------------------------- the file


def test_a_bert_is_loaded_without_its_pooling_layer_and_without_output(bert_folder: Path, capfd):
    bert = read_bert(str(bert_folder))
    # By hand: embeddings of 50 + 12 + 2 with a norm, four linear layers with a norm, two more with a norm.
    assert count(bert) == 64 * 16 + 32 + 4 * (16 * 16 + 16) + 32 + 2 * (16 * 16 + 16) + 32
    stored = load_file(bert_folder / "model.safetensors")
    assert set(stored) - set(bert.state_dict()) == {"pooler.dense.weight", "pooler.dense.bias"}
    assert all(torch.equal(stored[name], value) for name, value in bert.state_dict().items())
    assert bert.training
    assert capfd.readouterr() == ("", "")


def test_sizes_are_read_without_transformers(bert_folder: Path, monkeypatch):
    monkeypatch.setitem(sys.modules, "transformers", None)
    assert sizes_of(str(bert_folder)) == Sizes(vocabulary=50, positions=12, width=16)


def test_weights_stored_in_half_precision_are_loaded_as_float32(copied: Path):
    path = copied / "model.safetensors"
    save_file({name: value.half() for name, value in load_file(path).items()}, path, {"format": "pt"})
    assert {parameter.dtype for parameter in read_bert(str(copied)).parameters()} == {torch.float32}


def test_without_transformers_the_message_says_how_to_install_it(bert_folder: Path, monkeypatch):
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(InputError, match=r"needs the package transformers: pip install -e '\.\[bert\]'"):
        read_bert(str(bert_folder))


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
    "does not describe a BERT": lambda folder: (folder / "config.json").write_text("{"),
    "it lacks vocab_size": config(vocab_size=None),
    "hidden_size must be a whole number from 1 to 100000, not 1000000": config(hidden_size=10**6),
    "num_hidden_layers must be a whole number from 1 to 1000, not 5000": config(num_hidden_layers=5000),
    "needs 128 GB of memory": config(num_hidden_layers=1000, intermediate_size=10**6),  # 4 * 1000 * 2 * 16 * 10^6.
    "holds a model of type 'roberta'": config(model_type="roberta"),
    "cannot be read: Error no file named": lambda folder: (folder / "model.safetensors").unlink(),
    "cannot be read: ": lambda folder: (folder / "model.safetensors").write_bytes(b"damaged"),
    "lacks 2 weights, such as encoder.layer.0.output.dense.bias": without_a_layer,
    " cannot be read: You set": config(vocab_size=60),
}


@pytest.mark.parametrize("said", FAULTS)
def test_a_folder_without_a_usable_bert_is_refused_in_one_line(copied: Path, said: str, capfd):
    FAULTS[said](copied)
    with pytest.raises(InputError) as error:
        read_bert(str(copied))
    assert said in str(error.value)
    assert str(copied) in str(error.value)
    assert "\n" not in str(error.value)
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(
    "entries",
    [
        *({"hidden_size": "x"}, {"hidden_size": 10**12}, {"hidden_size": 17}, {"vocab_size": -3}, {"vocab_size": 1.5}),
        *({"num_hidden_layers": [1]}, {"num_attention_heads": 10**9}, {"hidden_act": "nosuch"}, {"hidden_act": 3}),
        *({"max_position_embeddings": True}, {"layer_norm_eps": "x"}, {"hidden_dropout_prob": 7}),
    ],
    ids=str,
)
def test_entries_of_the_configuration_that_no_network_can_have_are_refused(copied: Path, entries, cheap_fault):
    config(**entries)(copied)
    assert str(copied) in cheap_fault(read_bert, str(copied))


def test_weights_of_nan_are_refused(copied: Path, cheap_fault):
    path = copied / "model.safetensors"
    save_file({name: value * torch.nan for name, value in load_file(path).items()}, path, {"format": "pt"})
    assert "has weights that are NaN or infinite, such as embeddings." in cheap_fault(read_bert, str(copied))


def test_the_name_of_a_model_is_taken_for_a_folder_and_not_downloaded():
    with pytest.raises(InputError, match="bert-base-uncased does not exist"):
        read_bert("bert-base-uncased")
