"""Graph convolutions of GCNet and their edges, worked out by hand."""

from functools import partial

import pytest
import torch
from torch import Tensor, nn
from torch.testing import assert_close

from anysubset.models.conversation_graph import (
    GraphConvolution,
    RelationalConvolution,
    by_appearance,
    speaker_edges,
    temporal_edges,
)

X = torch.tensor([[[1.0], [2.0], [4.0]]], dtype=torch.float64)

close = partial(assert_close, rtol=0, atol=1e-12)


def edges_of(past: int, future: int, *lengths: int) -> Tensor:
    return temporal_edges(torch.arange(max(lengths)) < torch.tensor(lengths)[:, None], past, future)


def constant(linear: nn.Module, value: float) -> None:
    """Set the weight of a linear layer to a number, and its bias to 0."""
    assert isinstance(linear, nn.Linear)
    nn.init.constant_(linear.weight, value)
    if linear.bias is not None:
        nn.init.zeros_(linear.bias)


def relational() -> RelationalConvolution:
    """W_0 = 1, W_past = 1, W_now = 10, W_future = 100."""
    layer = RelationalConvolution(1, 1, 3).double()
    for linear, weight in zip((layer.own, *layer.neighbours), (1.0, 1.0, 10.0, 100.0), strict=True):
        constant(linear, weight)
    return layer


def graph() -> GraphConvolution:
    """W_1 = 1, W_2 = 0.1."""
    layer = GraphConvolution(1, 1).double()
    constant(layer.own, 1.0)
    constant(layer.neighbours, 0.1)
    return layer


@pytest.mark.parametrize(
    ("window", "expected"),
    [
        ((1, 1), (211, 423, 46)),
        ((2, 2), (311, 423, 45.5)),
        ((2, 0), (11, 23, 45.5)),
        ((0, 2), (311, 422, 44)),
    ],
)
def test_relational_convolution_by_hand(window: tuple[int, int], expected: tuple[float, ...]):
    # N1. First utterance at window 1/1: 1 (own) + 10 x 1 (now) + 100 x 2 (future) = 211.
    convolved = relational()(X, edges_of(*window, 3))
    close(convolved.flatten(), torch.tensor(expected, dtype=torch.float64))


@pytest.mark.parametrize(("window", "expected"), [((1, 1), (1.3, 2.7, 4.6)), ((2, 2), (1.7, 2.7, 4.7))])
def test_graph_convolution_by_hand(window: tuple[int, int], expected: tuple[float, ...]):
    # N2. First utterance at window 1/1: 1 + 0.1 (1 + 2) = 1.3.
    convolved = graph()(X, edges_of(*window, 3).any(dim=1))
    close(convolved.flatten(), torch.tensor(expected, dtype=torch.float64))


def test_both_convolutions_in_sequence_by_hand():
    # N3
    edges = edges_of(2, 2, 3)
    convolved = graph()(relational()(X, edges), edges.any(dim=1))
    close(convolved.flatten(), torch.tensor([388.95, 500.95, 123.45], dtype=torch.float64))


def test_padding_has_no_neighbours_and_is_none():
    edges = edges_of(1, 1, 3, 1)
    # By hand: of two conversations of 3 and 1 utterances, the second is its own only neighbour.
    assert edges.any(dim=1).int().tolist() == [
        [[1, 1, 0], [1, 1, 1], [0, 1, 1]],
        [[1, 0, 0], [0, 0, 0], [0, 0, 0]],
    ]
    assert edges[0].int().sum(dim=(1, 2)).tolist() == [2, 3, 2]


def test_edges_are_divided_by_pairs_of_speakers():
    neighbours = torch.ones(1, 3, 3, dtype=torch.bool)
    edges = speaker_edges(neighbours, torch.tensor([[0, 1, 0]]), 2)
    # By hand: utterances 0 and 2 are of speaker 0. Relations 00, 01, 10, 11.
    assert edges[0].int().tolist() == [
        [[1, 0, 1], [0, 0, 0], [1, 0, 1]],
        [[0, 1, 0], [0, 0, 0], [0, 1, 0]],
        [[0, 0, 0], [1, 0, 1], [0, 0, 0]],
        [[0, 0, 0], [0, 1, 0], [0, 0, 0]],
    ]
    assert torch.equal(speaker_edges(neighbours, torch.zeros(1, 3, dtype=torch.int64), 1)[:, 0], neighbours)


def test_speakers_are_numbered_in_each_conversation_anew():
    conversation, speaker = torch.tensor([0, 0, 1, 0, 1]), torch.tensor([8, 5, 5, 8, 8])
    assert by_appearance(conversation, speaker, 2).tolist() == [0, 1, 0, 0, 1]
