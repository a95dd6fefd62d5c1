"""BERT as the encoder of token ids, read from a folder on this machine: nothing is ever downloaded.

Devlin et al., "BERT: Pre-training of Deep Bidirectional Transformers", by Hugging Face's `transformers`, which the
extra `bert` installs. It is trained along, and belongs to its modality: of all that a step learns it gets one gradient,
that of the weighted loss.
"""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from safetensors import SafetensorError
from torch import Tensor, nn

from anysubset.batches import Observed
from anysubset.errors import InputError, one_line
from anysubset.models.encoders import SequenceEncoder, Steps


class TokenEncoder(nn.Module):
    """The last states of BERT, linear, a learned token in front, sinusoidal positions, layer norm.

    Args:
        folder: where a BERT is, as `save_pretrained` writes it.
        width: features a step in the network; even, and at least 4.

    Raises:
        InputError: if there is no BERT, or nothing that could read it.
    """

    def __init__(self, folder: str, width: int) -> None:
        super().__init__()
        self.folder = folder
        self.sizes = sizes_of(folder)
        self.bert = read_bert(folder)
        # A convolution that sees one step is linear.
        self.steps = SequenceEncoder(self.sizes.width, width, kernel=1)

    def check_input(self, observed: Observed, modality: str) -> None:
        """Raise InputError for token ids outside the vocabulary, or more tokens than there are positions."""
        tokens, valid = observed.values, observed.valid
        greatest, longest = int(tokens.max()), tokens.shape[1] if valid is None else int(valid.sum(dim=1).max())
        if not 0 <= int(tokens.min()) <= greatest < self.sizes.vocabulary:
            last = self.sizes.vocabulary - 1
            raise InputError(f"{modality} has token {greatest}, and the BERT in {self.folder} knows 0 to {last}.")
        if longest > self.sizes.positions:
            raise InputError(
                f"{modality} has {longest} tokens, and the BERT in {self.folder} takes up to {self.sizes.positions}."
            )

    def forward(self, x: Tensor, valid: Tensor | None = None) -> Steps:
        """(n, time) token ids, all of one segment -> the token and `time` steps."""
        if x.ndim != 2 or x.is_floating_point():
            raise InputError(f"BERT takes whole numbers of shape (n, time), not {x.dtype} of shape {tuple(x.shape)}.")
        valid = x == x if valid is None else valid
        if valid.shape != x.shape:
            raise InputError(f"Tokens of shape {tuple(x.shape)} came with valid steps of shape {tuple(valid.shape)}.")
        # Places count real tokens from 0, so that padding changes no position, wherever it stands.
        places = (valid.cumsum(dim=1) - 1).clamp(min=0)
        found = self.bert(input_ids=x.where(valid, 0), attention_mask=valid.long(), position_ids=places)
        steps: Steps = self.steps(found.last_hidden_state, valid)
        return steps


class Sizes(NamedTuple):
    """A BERT takes ids below `vocabulary`, up to `positions` of them in a row, and gives `width` features for each."""

    vocabulary: int
    positions: int
    width: int


def sizes_of(folder: str) -> Sizes:
    """As the folder's `config.json` says; needs no package.

    Raises:
        InputError: if there is no such folder, or no BERT in it.
    """
    path = Path(folder) / "config.json"
    if not path.is_file():
        fault = "has no config.json" if path.parent.is_dir() else "is not there"
        raise InputError(f"method.bert is a folder that a BERT was saved to; {folder} {fault}.")
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
        kind = config.get("model_type")
        sizes = Sizes(config["vocab_size"], config["max_position_embeddings"], config["hidden_size"])
    except (OSError, ValueError, KeyError, AttributeError) as error:
        raise InputError(f"{path} does not describe a BERT ({one_line(error)}).") from None
    if kind != "bert":
        raise InputError(f"{folder} holds a model of type {kind!r}; method.bert takes those of type 'bert'.")
    return sizes


def read_bert(folder: str) -> nn.Module:
    """The BERT in a folder, in float32 and without the layer for whole sentences, which nobody looks at.

    Raises:
        InputError: if there is none, some of its weights are not there, or `transformers` is not installed.
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
            model, found = BertModel.from_pretrained(
                folder, local_files_only=True, add_pooling_layer=False, output_loading_info=True
            )
    except (OSError, ValueError, RuntimeError, SafetensorError) as error:
        raise InputError(f"The BERT in {folder} cannot be read: {one_line(error)}") from None
    if found["missing_keys"]:
        some = ", ".join(sorted(found["missing_keys"])[:3])
        raise InputError(f"The BERT in {folder} lacks {len(found['missing_keys'])} weights: {some}.")
    bert: nn.Module = model.float().train()
    return bert


@contextmanager
def quiet() -> Iterator[None]:
    """Without the progress bar of `transformers`, and its report on weights that are there for other uses."""
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
