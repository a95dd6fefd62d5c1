"""Pretrained encoders of token ids, waveforms and images, from local folders in the format of Hugging Face.

    last hidden states -> linear -> a learned token in front, sinusoidal positions, layer norm

An encoder is fine-tuned, or frozen. Its parameters are private to its modality, so no gradient per case is computed for
them: they get the gradient of the weighted loss.
"""

from abc import abstractmethod
from typing import Any

import torch
from torch import Tensor, nn

from anysubset.batches import Observed
from anysubset.errors import InputError
from anysubset.models.encoders import SequenceEncoder, Steps, end_padded, expect
from anysubset.models.kept_states import KeptStates
from anysubset.models.pretrained_folder import read_model, read_preprocessing
from anysubset.system.limits import free_memory, in_words


class PretrainedEncoder(nn.Module):
    """The last hidden states of a pretrained model as steps of a sequence, projected to a width.

    A subclass says what the model takes.

    Args:
        folder: written by `save_pretrained`.
        width: features per step; even, and at least 4.
        frozen: whether the model stays as it is: it gets no gradient, and has no dropout in training.
        keep: whether the states of a frozen model are computed once for each sample, and kept in memory.

    Raises:
        InputError: if the folder holds no readable model of this kind, or `transformers` is not installed.
    """

    kind: str  # Of `Stream`.

    def __init__(self, folder: str, width: int, frozen: bool = False, keep: bool = True) -> None:
        super().__init__()
        self.folder = folder
        self.frozen = frozen
        self.pretrained: Any = read_model(folder, self.kind).requires_grad_(not frozen)
        self.size = size_of(self.pretrained.config)
        # A convolution with kernel size 1 is a linear layer on each step.
        self.steps = SequenceEncoder(self.size, width, kernel=1)
        self.kept_states = KeptStates(self.pretrained, self.states) if frozen and keep else None
        self.train()

    def train(self, mode: bool = True) -> "PretrainedEncoder":
        """Set the mode of training; a frozen model stays in that of evaluation."""
        super().train(mode)
        if self.frozen:
            self.pretrained.eval()
        return self

    def forward(self, x: Tensor, valid: Tensor | None = None) -> Steps:
        """Inputs (n, ...) -> (n, 1 + steps, width): the learned token, then the states; padding is at the end."""
        self.check_shape(x, valid)
        if self.kept_states is not None:
            states = self.kept_states.states(x, valid)
        else:
            with torch.set_grad_enabled(torch.is_grad_enabled() and not self.frozen):
                states = self.states(x, valid)
        steps: Steps = self.steps(states.values.to(self.steps.token.dtype), states.valid)
        return steps

    def check_input(self, observed: Observed, modality: str) -> None:
        """Raise InputError if the model cannot take these values, or their states do not fit into the memory."""
        self.check_shape(observed.values, observed.valid)
        self.check_values(observed, modality)
        needed = 4 * self.size * int(self.lengths(observed).sum())
        free = free_memory()
        if self.kept_states is not None and free is not None and needed > free:
            raise InputError(
                f"The states of {len(observed.indices)} samples of {modality} take {in_words(needed)} of memory, and "
                f"{in_words(free)} are free: set method.keep_states to false, and they are computed in every step."
            )

    @abstractmethod
    def states(self, x: Tensor, valid: Tensor | None) -> Steps:
        """Last hidden states of n samples, (n, steps, size), padding at the end."""

    @abstractmethod
    def check_shape(self, x: Tensor, valid: Tensor | None) -> None:
        """Raise InputError if inputs have another shape than the model takes."""

    @abstractmethod
    def check_values(self, observed: Observed, modality: str) -> None:
        """Raise InputError if the model cannot take the values of a modality, whose shape is right."""

    @abstractmethod
    def lengths(self, observed: Observed) -> Tensor:
        """Number of states of each sample, (n,) int64."""


class TokenEncoder(PretrainedEncoder):
    """A model of text, such as BERT (Devlin et al. 2019), on token ids of its own tokenizer."""

    kind = "tokens"

    def states(self, x: Tensor, valid: Tensor | None) -> Steps:
        """(n, time) token ids, all of one segment -> a state for each token."""
        # The model counts positions from the first token, so that padding has to be at the end.
        x, valid = end_padded(x, torch.ones_like(x, dtype=torch.bool) if valid is None else valid)
        filler = self.pretrained.config.pad_token_id or 0
        output = self.pretrained(input_ids=x.where(valid, filler), attention_mask=valid.long())
        return Steps(output.last_hidden_state, valid)

    def check_shape(self, x: Tensor, valid: Tensor | None) -> None:
        """Raise InputError unless x is (n, time) integers, and valid has the same shape."""
        if x.ndim != 2 or x.is_floating_point():
            raise InputError(
                f"The encoder in {self.folder} takes integers of shape (n, time), not {x.dtype} of shape "
                f"{tuple(x.shape)}."
            )
        check_valid(x, valid)

    def check_values(self, observed: Observed, modality: str) -> None:
        """Raise InputError for token ids outside the vocabulary, or more tokens than the model has positions."""
        tokens, vocabulary = observed.values, self.pretrained.get_input_embeddings().num_embeddings
        greatest, longest = int(tokens.max()), int(self.lengths(observed).max())
        if not 0 <= int(tokens.min()) <= greatest < vocabulary:
            raise InputError(
                f"{modality} has token id {greatest}; the vocabulary of the encoder in {self.folder} is 0 to "
                f"{vocabulary - 1}."
            )
        positions = positions_of(self.pretrained)
        if positions is not None and longest > positions:
            raise InputError(f"{modality} has {longest} tokens; the encoder in {self.folder} takes up to {positions}.")

    def lengths(self, observed: Observed) -> Tensor:
        """Number of tokens of each sample."""
        time = observed.values.shape[1]
        return torch.full((len(observed.values),), time) if observed.valid is None else observed.valid.sum(dim=1)


class WaveformEncoder(PretrainedEncoder):
    """A model of speech, such as wav2vec 2.0 (Baevski et al. 2020), on waveforms at its sampling rate."""

    kind = "waveform"

    def __init__(self, folder: str, width: int, frozen: bool = False, keep: bool = True) -> None:
        super().__init__(folder, width, frozen, keep)
        self.normalised = bool(read_preprocessing(folder).get("do_normalize", True))

    def states(self, x: Tensor, valid: Tensor | None) -> Steps:
        """(n, time) -> a state for each frame; a waveform is scaled to mean 0 and variance 1, as the folder says."""
        valid = torch.ones_like(x, dtype=torch.bool) if valid is None else valid
        x, valid = end_padded(x, valid)
        lengths = valid.sum(dim=1)
        frames = self.frames(lengths)
        values = x.new_zeros(len(x), int(frames.max()), self.size)
        # Waveforms of one length at a time: the norm over time in the base models would see padding.
        for length in lengths.unique().tolist():
            rows = lengths == length
            waves = x[rows, :length]
            if self.normalised:
                variance, mean = torch.var_mean(waves, dim=1, keepdim=True, correction=0)
                waves = (waves - mean) / (variance + 1e-7).sqrt()
            output = self.pretrained(input_values=waves).last_hidden_state
            values = values.to(output.dtype)  # As autocast may give it.
            values[rows, : output.shape[1]] = output
        return Steps(values, torch.arange(values.shape[1], device=x.device) < frames[:, None])

    def frames(self, lengths: Tensor) -> Tensor:
        """Number of frames of waveforms of these lengths: convolutions without padding, one after the other."""
        config = self.pretrained.config
        for kernel, stride in zip(config.conv_kernel, config.conv_stride, strict=True):
            lengths = (lengths - kernel).div(stride, rounding_mode="floor") + 1
        return lengths.clamp(min=0)

    def check_shape(self, x: Tensor, valid: Tensor | None) -> None:
        """Raise InputError unless x is (n, time) floats, and valid has the same shape."""
        if x.ndim != 2 or not x.is_floating_point():
            raise InputError(
                f"The encoder in {self.folder} takes waveforms of shape (n, time), not {x.dtype} of shape "
                f"{tuple(x.shape)}."
            )
        check_valid(x, valid)

    def check_values(self, observed: Observed, modality: str) -> None:
        """Raise InputError for a waveform that is too short for a single frame."""
        if not self.lengths(observed).all():
            config = self.pretrained.config
            least, step = 1, 1
            for kernel, stride in zip(config.conv_kernel, config.conv_stride, strict=True):
                least, step = least + (kernel - 1) * step, step * stride
            raise InputError(
                f"{modality} has a waveform of fewer than {least} values; {self.folder} takes longer ones."
            )

    def lengths(self, observed: Observed) -> Tensor:
        """Number of frames of each sample."""
        time = observed.values.shape[1]
        lengths = torch.full((len(observed.values),), time) if observed.valid is None else observed.valid.sum(dim=1)
        return self.frames(lengths)


class PixelEncoder(PretrainedEncoder):
    """A model of images, such as ViT (Dosovitskiy et al. 2021), on images of its size."""

    kind = "image"

    def states(self, x: Tensor, valid: Tensor | None) -> Steps:
        """(n, channels, height, width) -> a state for each patch, with those of tokens that the model adds."""
        states = self.pretrained(pixel_values=x).last_hidden_state
        if states.ndim == 4:  # A convolutional network gives maps (n, size, height, width).
            states = states.flatten(2).transpose(1, 2)
        return Steps(states, torch.ones(states.shape[:2], dtype=torch.bool, device=x.device))

    def check_shape(self, x: Tensor, valid: Tensor | None) -> None:
        """Raise InputError unless x is (n, channels, height, width) as the model takes them."""
        config = self.pretrained.config
        side = getattr(config, "image_size", None)
        height, width = side if isinstance(side, list | tuple) else (side or "height", side or "width")
        expect(x, "n", config.num_channels, height, width)

    def check_values(self, observed: Observed, modality: str) -> None:
        """Do nothing: any finite pixels are possible."""

    def lengths(self, observed: Observed) -> Tensor:
        """Number of states of each image, as of the first one."""
        with torch.no_grad():
            first = observed.values[:1].to(self.steps.token)
            steps = self.states(first, None).values.shape[1]
        return torch.full((len(observed.values),), steps)


ENCODERS: dict[str, type[PretrainedEncoder]] = {
    encoder.kind: encoder for encoder in (TokenEncoder, WaveformEncoder, PixelEncoder)
}


def check_valid(x: Tensor, valid: Tensor | None) -> None:
    """Raise InputError if `valid` has another shape than the inputs."""
    if valid is not None and valid.shape != x.shape:
        raise InputError(f"Inputs of shape {tuple(x.shape)} came with valid steps of shape {tuple(valid.shape)}.")


def size_of(config: Any) -> int:
    """Features of a hidden state, by the configuration of a model."""
    return int(config.hidden_size) if hasattr(config, "hidden_size") else int(config.hidden_sizes[-1])


def positions_of(model: nn.Module) -> int | None:
    """The longest sequence of tokens that a model has positions for; None if it has no such limit."""
    for name, module in model.named_modules():
        if isinstance(module, nn.Embedding) and name.split(".")[-1] in (
            "position_embeddings",
            "position_embedding",
            "wpe",
        ):
            # RoBERTa counts positions from the one after that of padding.
            return module.num_embeddings - (0 if module.padding_idx is None else module.padding_idx + 1)
    return None
