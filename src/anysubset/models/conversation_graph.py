"""Graph convolutions over the utterances of a conversation, and their edges, without a graph library.

Conversations are short, so edges are dense matrices (conversations, relations, utterances, utterances), true if the
utterance of the column is a neighbour of that of the row.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional

from anysubset.errors import InputError

TIMES = 3  # Relations in time: past, now, future; always in this order.


class RelationalConvolution(nn.Module):
    """RGCN: x_i' = W_0 x_i + b + sum_r mean_{j in N_r(i)} W_r x_j; a relation without neighbours adds 0."""

    def __init__(self, size: int, hidden: int, relations: int) -> None:
        super().__init__()
        self.own = nn.Linear(size, hidden)
        self.neighbours = nn.ModuleList(nn.Linear(size, hidden, bias=False) for _ in range(relations))

    def forward(self, x: Tensor, edges: Tensor) -> Tensor:
        """(n, utterances, size) -> (n, utterances, hidden); edges: (n, relations, utterances, utterances) bool."""
        shares = edges.to(x.dtype) / edges.sum(dim=-1, keepdim=True).clamp(min=1)
        convolved: Tensor = self.own(x)
        for relation, linear in enumerate(self.neighbours):
            convolved = convolved + shares[:, relation] @ linear(x)
        return convolved


class GraphConvolution(nn.Module):
    """GraphConv: x_i' = W_1 x_i + W_2 sum_{j in N(i)} x_j + b; a sum, not a mean."""

    def __init__(self, size: int, hidden: int) -> None:
        super().__init__()
        self.own = nn.Linear(size, hidden)
        self.neighbours = nn.Linear(size, hidden, bias=False)

    def forward(self, x: Tensor, edges: Tensor) -> Tensor:
        """(n, utterances, size) -> (n, utterances, hidden); edges: (n, utterances, utterances) bool."""
        convolved: Tensor = self.own(x) + self.neighbours(edges.to(x.dtype) @ x)
        return convolved


def temporal_edges(valid: Tensor, past: int, future: int) -> Tensor:
    """The neighbours of every utterance: some of the past, itself (now), and some of the future.

    Args:
        valid: (conversations, longest) bool, false at padding.
        past: number of earlier utterances.
        future: number of later utterances.

    Returns:
        (conversations, 3, longest, longest) bool: true if the column is a neighbour of the row, in the
        order past, now, future.
    """
    number = torch.arange(valid.shape[1])
    later = number - number[:, None]  # By how much the column is later than the row.
    relations = torch.stack([(-past <= later) & (later < 0), later == 0, (later > 0) & (later <= future)])
    return relations & valid[:, None, None, :] & valid[:, None, :, None]


def by_appearance(conversation: Tensor, speaker: Tensor, most: int) -> Tensor:
    """Number the speakers of each conversation anew, from 0, in the order of their first utterances: (n,) int64.

    Args:
        conversation: (n,) int64, of each utterance.
        speaker: (n,) int64, of each utterance.
        most: largest number of speakers.

    Raises:
        InputError: if a conversation has more speakers.

    >>> by_appearance(torch.tensor([0, 0, 0, 1]), torch.tensor([5, 3, 5, 3]), most=2)
    tensor([0, 1, 0, 0])
    """
    numbers: dict[int, dict[int, int]] = {}
    for own_conversation, own_speaker in zip(conversation.tolist(), speaker.tolist(), strict=True):
        own = numbers.setdefault(own_conversation, {})
        own.setdefault(own_speaker, len(own))
    largest = max(map(len, numbers.values()))
    if largest > most:
        raise InputError(f"A conversation has {largest} speakers, and method.speakers is {most}.")
    pairs = zip(conversation.tolist(), speaker.tolist(), strict=True)
    return torch.tensor([numbers[own_conversation][own_speaker] for own_conversation, own_speaker in pairs])


def speaker_edges(neighbours: Tensor, speaker: Tensor, speakers: int) -> Tensor:
    """Edges by the pair of speakers.

    Args:
        neighbours: (conversations, longest, longest) bool, true if the column is a neighbour of the row.
        speaker: (conversations, longest) int64, from 0.
        speakers: number of speakers s.

    Returns:
        (conversations, s^2, longest, longest) bool: relation a s + b has the edges from rows of speaker a to
        columns of speaker b.
    """
    one_hot = functional.one_hot(speaker, speakers).bool()
    pairs = one_hot[:, :, None, :, None] & one_hot[:, None, :, None, :]
    return pairs.flatten(3).permute(0, 3, 1, 2) & neighbours[:, None]
