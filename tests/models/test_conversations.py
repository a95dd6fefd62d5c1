"""Conversations are padded and taken apart again; LSTMs stop at the end of a conversation."""

import pytest
import torch
from torch.testing import assert_close

from anysubset.models.conversations import BiLSTM, layout_of


def test_utterances_are_padded_by_conversation_in_their_order():
    # By hand: the conversations 1 (two utterances) and 4 (three) are interleaved.
    layout = layout_of(torch.tensor([4, 1, 4, 1, 4]))
    x = torch.tensor([[10.0], [20.0], [11.0], [21.0], [12.0]])
    padded = layout.padded(x)
    assert padded[..., 0].tolist() == [[20.0, 21.0, 0.0], [10.0, 11.0, 12.0]]
    assert layout.valid.tolist() == [[True, True, False], [True, True, True]]
    assert torch.equal(layout.utterances(padded), x)


@pytest.mark.parametrize("packed", [True, False])
def test_only_a_packed_lstm_ignores_padding(packed: bool):
    torch.manual_seed(0)
    lstm = BiLSTM(3, 2, packed=packed).double()
    x = torch.randn(1, 4, 3, dtype=torch.float64)
    alone = lstm(x, torch.tensor([4]))
    padded = torch.cat([x, torch.zeros(1, 2, 3, dtype=torch.float64)], dim=1)
    assert alone.shape == (1, 4, 4)
    states = lstm(padded, torch.tensor([4]))
    assert torch.allclose(states[:, :4], alone, rtol=0, atol=1e-12) == packed
    assert (states[:, 4:] == 0).all() == packed
    # The forward direction of the first layer comes to the padding last, but the backward direction starts there.
    assert_close(lstm.lstm(x)[0], alone, rtol=0, atol=1e-12)
