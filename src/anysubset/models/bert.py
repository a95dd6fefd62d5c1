"""BERT as the encoder of token ids, read from a local folder; nothing is downloaded.

Devlin et al., "BERT: Pre-training of Deep Bidirectional Transformers", in the implementation of Hugging Face's
`transformers`, which the extra `bert` installs. BERT is fine-tuned. Its parameters are private to its modality, so no
gradient per case is computed for them: they get the gradient of the weighted loss.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from anysubset.batches import Observed
from anysubset.errors import InputError, one_line
from anysubset.models.encoders import SequenceEncoder, Steps
from anysubset.system.input_files import read_json
from anysubset.system.limits import check_memory
from anysubset.system.schema import Fields, Number, Text, check

CONFIG = Fields(
    {
        "model_type": Text(("bert",)),
        **{name: Number(whole=True, least=1, most=10**7) for name in ("vocab_size", "max_position_embeddings")},
        "hidden_size": Number(whole=True, least=1, most=10**5),
    },
    {
        **{name: Number(whole=True, least=1, most=10**6) for name in ("intermediate_size", "type_vocab_size")},
        **{name: Number(whole=True, least=1, most=10**3) for name in ("num_hidden_layers", "num_attention_heads")},
        **{name: Number(least=0, most=1) for name in ("hidden_dropout_prob", "attention_probs_dropout_prob")},
        "layer_norm_eps": Number(least=0, most=1),
        "hidden_act": Text(),
    },
)


class TokenEncoder(nn.Module):
    """Last hidden states of BERT, then linear, a learned token in front, sinusoidal positions, layer norm.

    Args:
        folder: a BERT saved by `save_pretrained`.
        width: features per step; even, and at least 4.

    Raises:
        InputError: if the folder holds no readable BERT, or `transformers` is not installed.
    """

    def __init__(self, folder: str, width: int) -> None:
        super().__init__()
        self.folder = folder
        self.sizes = sizes_of(folder)
        self.bert = read_bert(folder)
        # A convolution with kernel size 1 is a linear layer on each step.
        self.steps = SequenceEncoder(self.sizes.width, width, kernel=1)

    def check_input(self, observed: Observed, modality: str) -> None:
        """Raise InputError for token ids outside the vocabulary, or more tokens than BERT has positions."""
        tokens, valid = observed.values, observed.valid
        greatest, longest = int(tokens.max()), tokens.shape[1] if valid is None else int(valid.sum(dim=1).max())
        if not 0 <= int(tokens.min()) <= greatest < self.sizes.vocabulary:
            last = self.sizes.vocabulary - 1
            raise InputError(
                f"{modality} has token id {greatest}; the vocabulary of the BERT in {self.folder} is 0 to {last}."
            )
        if longest > self.sizes.positions:
            raise InputError(
                f"{modality} has {longest} tokens; the BERT in {self.folder} takes up to {self.sizes.positions}."
            )

    def forward(self, x: Tensor, valid: Tensor | None = None) -> Steps:
        """(n, time) token ids, all of segment 0 -> (n, 1 + time, width): the learned token, then the tokens."""
        if x.ndim != 2 or x.is_floating_point():
            raise InputError(f"BERT takes integers of shape (n, time), not {x.dtype} of shape {tuple(x.shape)}.")
        valid = x == x if valid is None else valid
        if valid.shape != x.shape:
            raise InputError(f"Tokens of shape {tuple(x.shape)} came with valid steps of shape {tuple(valid.shape)}.")
        # Positions count valid tokens from 0, so that padding, at either end, does not shift them.
        positions = (valid.cumsum(dim=1) - 1).clamp(min=0)
        output = self.bert(input_ids=x.where(valid, 0), attention_mask=valid.long(), position_ids=positions)
        steps: Steps = self.steps(output.last_hidden_state, valid)
        return steps


class Sizes(NamedTuple):
    """Sizes of a BERT: number of token ids, longest sequence in tokens, features per token."""

    vocabulary: int
    positions: int
    width: int


def sizes_of(folder: str) -> Sizes:
    """Read the sizes of a BERT from the `config.json` of its folder; does not need `transformers`.

    Raises:
        InputError: if the folder does not exist, or holds no BERT.
    """
    path = Path(folder) / "config.json"
    if not path.is_file():
        fault = "has no config.json" if path.parent.is_dir() else "does not exist"
        raise InputError(f"method.bert must be a folder written by save_pretrained of a BERT; {folder} {fault}.")
    try:
        config = read_json(path)
        kind = config.get("model_type", "bert") if isinstance(config, dict) else "bert"
        if kind != "bert":
            raise InputError(f"it holds a model of type {str(kind)[:40]!r}; method.bert takes models of type 'bert'")
        check(config, CONFIG, str(path))
    except InputError as error:
        raise InputError(f"{path} does not describe a BERT: {error}") from None
    check_memory(path, 4 * numbers_in(config))
    return Sizes(config["vocab_size"], config["max_position_embeddings"], config["hidden_size"])


def numbers_in(config: Mapping[str, Any]) -> int:
    """Number of weights of a BERT, without biases and norms; sizes that are not named have the defaults of BERT."""
    width, layers = config["hidden_size"], config.get("num_hidden_layers", 12)
    embedded = config["vocab_size"] + config["max_position_embeddings"] + config.get("type_vocab_size", 2)
    return int(width * (embedded + layers * (4 * width + 2 * config.get("intermediate_size", 3072))))


def read_bert(folder: str) -> nn.Module:
    """Load a BERT in float32, without its pooling layer, which is not used.

    Raises:
        InputError: if the folder holds no BERT, weights are missing, or `transformers` is not installed.
    """
    sizes_of(folder)
    try:
        from transformers import BertModel
    except ImportError:
        raise InputError(
            "Preset 'bert' needs the package transformers: pip install -e '.[bert]' in the folder of anysubset, "
            "or take another preset."
        ) from None
    try:
        with quiet():
            model, report = BertModel.from_pretrained(
                folder,
                local_files_only=True,
                add_pooling_layer=False,
                output_loading_info=True,
                weights_only=True,  # Of a `.bin` file, which is a pickle: tensors, and no code.
            )
    except Exception as error:  # `transformers` passes on what any damaged file raises.
        raise InputError(f"The BERT in {folder} cannot be read: {one_line(error)}") from None
    missing = sorted(report["missing_keys"])
    if missing:
        raise InputError(
            f"The BERT in {folder} lacks {len(missing)} weights, such as {', '.join(missing[:3])}: save it again with "
            "save_pretrained."
        )
    bert: nn.Module = model.float().train()
    for name, parameter in bert.named_parameters():
        if not torch.isfinite(parameter).all():
            raise InputError(f"The BERT in {folder} has weights that are NaN or infinite, such as {name}.")
    return bert


@contextmanager
def quiet() -> Iterator[None]:
    """Silence the progress bar of `transformers` and its report on unused weights, such as those of the pooling."""
    from transformers.utils import logging

    bar, verbosity = logging.is_progress_bar_enabled(), logging.get_verbosity()
    logging.disable_progress_bar()
    logging.set_verbosity_error()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        if bar:
            logging.enable_progress_bar()
