"""Conversations in a batch: utterances in a row, or padded to tensors of (conversations, longest, ...)."""

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence


class Layout(NamedTuple):
    """Where n utterances stand in padded conversations. All tensors are int64 on the CPU.

    conversation: (n,) number of the conversation of each utterance, from 0.
    position: (n,) its number within the conversation, from 0, in the order of the utterances.
    lengths: (conversations,) number of utterances of each conversation.
    """

    conversation: Tensor
    position: Tensor
    lengths: Tensor

    def padded(self, x: Tensor) -> Tensor:
        """(n, ...) -> (conversations, longest, ...), 0 at padding."""
        zeros = x.new_zeros(len(self.lengths), int(self.lengths.max()), *x.shape[1:])
        return zeros.index_put((self.conversation.to(x.device), self.position.to(x.device)), x)

    def utterances(self, padded: Tensor) -> Tensor:
        """(conversations, longest, ...) -> (n, ...): the inverse of `padded`."""
        return padded[self.conversation.to(padded.device), self.position.to(padded.device)]

    @property
    def valid(self) -> Tensor:
        """(conversations, longest) bool, false at padding."""
        return torch.arange(int(self.lengths.max())) < self.lengths[:, None]


def layout_of(conversation: Tensor) -> Layout:
    """The layout of utterances, which are in order within their conversation.

    Args:
        conversation: (n,) int64 on the CPU, equal for the utterances of one conversation; n is at least 1.

    >>> layout_of(torch.tensor([7, 7, 3]))
    Layout(conversation=tensor([1, 1, 0]), position=tensor([0, 1, 0]), lengths=tensor([1, 2]))
    """
    _, number = conversation.unique(return_inverse=True)
    members = functional.one_hot(number)
    position = (members.cumsum(dim=0) * members).sum(dim=1) - 1
    return Layout(number, position, members.sum(dim=0))


class BiLSTM(nn.Module):
    """LSTM of two layers in both directions over the utterances of each conversation.

    Args:
        size: features of an utterance.
        hidden: size of the state of one direction.
        dropout: of the states of the first layer.
        packed: whether it stops at the end of each conversation. Otherwise it runs on over the padding, so that the
            states of the backward direction depend on the longest conversation of the batch.
    """

    def __init__(self, size: int, hidden: int, dropout: float = 0.0, packed: bool = True) -> None:
        super().__init__()
        self.packed = packed
        self.lstm = nn.LSTM(size, hidden, num_layers=2, dropout=dropout, bidirectional=True, batch_first=True)

    def forward(self, x: Tensor, lengths: Tensor) -> Tensor:
        """(conversations, longest, size) -> (conversations, longest, 2 hidden); packed, padding gets 0.

        lengths: (conversations,) int64 on the CPU.
        """
        if not self.packed:
            states: Tensor = self.lstm(x)[0]
            return states
        packed, _ = self.lstm(pack_padded_sequence(x, lengths, batch_first=True, enforce_sorted=False))
        return pad_packed_sequence(packed, batch_first=True, total_length=x.shape[1])[0]
