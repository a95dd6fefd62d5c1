"""The network and loss of GCNet: oracles worked out by hand, layers against loops over nodes, numbers of parameters."""

from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.testing import assert_close

from anysubset.batches import Observed, keep
from anysubset.models.conversation_graph import temporal_edges
from anysubset.models.conversations import layout_of
from anysubset.models.gcnet import (
    Block,
    ConversationAttention,
    GCNet,
    attention_weights,
    reconstruction_loss,
)
from anysubset.scenarios import Scenario

NAMES = ("audio", "text", "vision")
SIZES = {"audio": 2, "text": 3, "vision": 1}
PUBLISHED = {"audio": 512, "text": 1024, "vision": 1024}

close = partial(assert_close, rtol=0, atol=1e-12)


def count(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def edges_of(past: int, future: int, *lengths: int) -> Tensor:
    return temporal_edges(torch.arange(max(lengths)) < torch.tensor(lengths)[:, None], past, future)


def small(**options: Any) -> GCNet:
    torch.manual_seed(0)
    return GCNet(SIZES, 1, width=4, **options).double().eval()


def inputs_of(presence: list[Scenario], seed: int = 1) -> dict[str, Observed]:
    """Vectors of utterances with these modalities."""
    generator = torch.Generator().manual_seed(seed)
    inputs = {}
    for name, size in SIZES.items():
        values = torch.randn(len(presence), size, generator=generator, dtype=torch.float64)
        indices = torch.tensor([index for index, own in enumerate(presence) if name in own], dtype=torch.int64)
        if len(indices):
            inputs[name] = Observed(values[indices], indices)
    return inputs


def predict(network: GCNet, inputs: Mapping[str, Observed], presence: list[Scenario], groups: list[str]) -> Tensor:
    return network.output_by_sample(network.features(inputs, groups=groups), presence).output


# ------------------------------------------------------------------------------------------------------ oracles


def test_attention_weights_by_hand():
    # N4: softmax of tanh(2), tanh(1), 0; without tanh the first would be .665.
    scores = torch.tensor([2.0, 1.0, 0.0], dtype=torch.float64)
    whole = torch.ones(3, dtype=torch.bool)
    expected = torch.tensor([0.454939, 0.371568, 0.173493], dtype=torch.float64)
    assert_close(attention_weights(scores, whole), expected, rtol=0, atol=1e-6)
    last_padded = attention_weights(scores, torch.tensor([True, True, False]))
    expected = torch.tensor([0.550436, 0.449564, 0.0], dtype=torch.float64)
    assert_close(last_padded, expected, rtol=0, atol=1e-6)
    assert scores.softmax(dim=0)[0].item() == pytest.approx(0.665241, abs=1e-6)
    extreme = attention_weights(torch.tensor([1e3, -1e3]), whole[:2])
    assert (extreme[0] / extreme[1]).item() == pytest.approx(7.389, abs=1e-3)


def test_the_reconstruction_loss_by_hand():
    # N5: audio (two entries) is absent in one utterance with errors 1 and 2, text (one entry) in the other with 3:
    # (1 + 4) / 2 / 2 utterances + 9 / 2 utterances = 5.75. Other errors do not count.
    vectors = torch.tensor([[1.0, 2.0, 50.0], [60.0, 70.0, 3.0]])
    absent = torch.tensor([[True, False], [False, True]])
    assert reconstruction_loss(vectors, torch.zeros(2, 3), absent, (2, 1)).item() == pytest.approx(5.75)
    assert reconstruction_loss(vectors, torch.zeros(2, 3), absent & False, (2, 1)).item() == 0


@pytest.mark.parametrize(
    ("width", "plain", "with_attention"),
    [(100, 8_350_711, 8_851_711), (50, 2_766_636, 2_892_136), (200, 27_978_861, 29_980_861)],
)
def test_the_network_has_the_published_number_of_parameters(width: int, plain: int, with_attention: int):
    # N6
    with torch.device("meta"):
        network = GCNet(PUBLISHED, 1, width=width)
        assert count(network) == plain
        assert count(GCNet(PUBLISHED, 1, width=width, attention=True)) == with_attention
    assert sum(parameter.numel() for parameter in network.shared_parameters()) == plain


PRESENCE: list[Scenario] = [NAMES, ("text",), ("audio", "vision"), ("vision",), NAMES, ("audio", "text")]


@pytest.mark.parametrize("attention", [False, True])
def test_an_answer_depends_neither_on_other_conversations_nor_on_their_order(attention: bool):
    # N7: the conversation b (2 utterances) alone, beside a longer one, and before it.
    network, inputs = small(attention=attention), inputs_of(PRESENCE)
    together = predict(network, inputs, PRESENCE, ["a"] * 4 + ["b"] * 2)
    for rows, groups in (([4, 5], ["b"] * 2), ([4, 5, 0, 1, 2, 3], ["b"] * 2 + ["a"] * 4)):
        selected = {
            name: Observed(
                torch.stack(
                    [observed.values[observed.indices.tolist().index(row)] for row in rows if name in PRESENCE[row]]
                ),
                torch.tensor([new for new, row in enumerate(rows) if name in PRESENCE[row]]),
            )
            for name, observed in inputs.items()
        }
        alone = predict(network, selected, [PRESENCE[row] for row in rows], groups)
        assert_close(alone, together[rows], rtol=0, atol=1e-6)
    one = predict(network, inputs, PRESENCE, ["a"] * 6)
    assert not torch.allclose(one[4:], together[4:], atol=1e-6)


# --------------------------------------------------------------------------------------- layers as loops over nodes


@pytest.mark.parametrize("seed", range(4))
def test_a_block_equals_loops_over_utterances(seed: int):
    generator = torch.Generator().manual_seed(seed)
    past, future, *lengths = torch.randint(0, 4, (5,), generator=generator).tolist()
    lengths = [length + 1 for length in lengths]
    torch.manual_seed(seed)
    block = Block(4, 3, 3, attention=True, packed=True).double()
    assert block.attention is not None
    conversation = torch.tensor([number for number, length in enumerate(lengths) for _ in range(length)])
    layout = layout_of(conversation)
    x = torch.randn(len(conversation), 4, generator=generator, dtype=torch.float64)
    outputs = layout.utterances(block(layout.padded(x), edges_of(past, future, *lengths), layout.lengths))
    start = 0
    for length in lengths:
        own = x[start : start + length]
        expected = block_by_loops(block, own, past, future)
        close(outputs[start : start + length], expected)
        start += length


def block_by_loops(block: Block, x: Tensor, past: int, future: int) -> Tensor:
    """The block on one conversation, (n, size), utterance by utterance."""
    count = len(x)
    within = [[j for j in range(count) if i - past <= j <= i + future] for i in range(count)]
    first = []
    for i in range(count):
        value = block.relational.own(x[i])
        by_relation = ([j for j in within[i] if j < i], [i], [j for j in within[i] if j > i])
        for neighbours, linear in zip(by_relation, block.relational.neighbours, strict=True):
            if neighbours:
                value = value + torch.stack([linear(x[j]) for j in neighbours]).mean(dim=0)
        first.append(value)
    second = [
        block.graph.own(first[i]) + sum(block.graph.neighbours(first[j]) for j in within[i]) for i in range(count)
    ]
    states = block.lstm.lstm(torch.cat([x, torch.stack(second)], dim=1))[0]
    assert isinstance(block.attention, ConversationAttention)
    attended = []
    for t in range(count):
        query = block.attention.linear(states[t])
        weights = torch.stack([torch.tanh(states[j] @ query) for j in range(count)]).softmax(dim=0)
        attended.append(sum(weights[j] * states[j] for j in range(count)))
    return torch.relu(block.linear(torch.stack(attended)))


# ---------------------------------------------------------------------------------------- scenarios and options


def test_absent_modalities_are_zeros_at_the_input():
    network = small()
    features = network.features(inputs_of(PRESENCE), groups=["a"] * 6)
    shown: list[Scenario] = [("audio",), ("text",), ("vision",), ("vision",), NAMES, ("audio", "text")]
    x, visible = network.concatenated(features, shown)
    assert visible.tolist() == [[name in own for name in NAMES] for own in shown]
    # By hand: audio fills columns 0 and 1, text 2 to 4, vision 5.
    assert (x[0, 2:] == 0).all()
    assert torch.equal(x[0, :2], features["audio"].values.vectors[0])
    assert torch.equal(x[1, 2:5], features["text"].values.vectors[1])
    assert (x != 0).sum(dim=1).tolist() == [2, 3, 1, 1, 6, 5]
    assert network.context(features, 6).tolist() == [[0] * 6] * 2


def test_a_case_leaves_out_utterances_without_its_modalities():
    network, inputs = small(), inputs_of(PRESENCE)
    features = network.features(inputs, groups=["a"] * 4 + ["b"] * 2)
    output, indices = network.output_of_case(features, ("audio", "text"))
    # By hand: 0, 4 and 5 have both; 1 and 2 have one of them and are context; 3 is left out.
    assert indices.tolist() == [0, 4, 5]
    rows = [0, 1, 2, 4, 5]
    reduced: list[Scenario] = [tuple(name for name in ("audio", "text") if name in PRESENCE[row]) for row in rows]
    observed = {
        name: Observed(values.values, torch.tensor([rows.index(row) for row in values.indices.tolist()]))
        for name, values in keep(inputs, ("audio", "text")).items()
    }
    expected = predict(network, observed, reduced, ["a"] * 3 + ["b"] * 2)
    assert output is not None
    close(output.output, expected[[0, 3, 4]])
    without_vision = keep(features, ("audio", "text"))
    assert network.output_of_case(without_vision, ("vision",))[0] is None


@pytest.mark.parametrize(
    "options", [{"packed": False}, {"swap_windows": True}, {"conversation": False}, {"attention": True}, {"past": 0}]
)
def test_every_option_changes_the_prediction(options: dict[str, Any]):
    base: dict[str, Any] = {"past": 2, "future": 1}
    inputs, groups = inputs_of(PRESENCE), ["a"] * 2 + ["b"] * 4
    plain = small(**base)
    other = small(**{**base, **options})
    other.load_state_dict(plain.state_dict(), strict=False)
    difference = predict(plain, inputs, PRESENCE, groups) - predict(other, inputs, PRESENCE, groups)
    assert difference.abs().max() > 1e-6


def test_swapped_windows_are_those_of_the_other_side():
    inputs, groups = inputs_of(PRESENCE), ["a"] * 6
    swapped, other = small(past=2, future=0, swap_windows=True), small(past=0, future=2)
    assert torch.equal(predict(swapped, inputs, PRESENCE, groups), predict(other, inputs, PRESENCE, groups))


def test_without_conversations_each_utterance_is_predicted_by_itself():
    network, inputs = small(conversation=False), inputs_of(PRESENCE)
    assert (network.unit, small().unit) == ("sample", "group")
    together = predict(network, inputs, PRESENCE, ["a"] * 6)
    for row, own in enumerate(PRESENCE):
        single = {name: Observed(inputs[name].values[inputs[name].indices == row], torch.tensor([0])) for name in own}
        close(predict(network, single, [own], ["b"]), together[row : row + 1])


def test_a_sequence_is_averaged_over_its_valid_steps():
    network = small()
    steps = torch.tensor([[[1.0, 0.0], [3.0, 2.0], [torch.nan, 99.0]]], dtype=torch.float64)
    vectors = network.encode("audio", steps, torch.tensor([[True, True, False]])).vectors
    assert vectors.tolist() == [[2.0, 1.0]]


def test_options_out_of_range_are_refused(fault):
    assert fault(GCNet, SIZES, 1, width=5) == "method.width of GCNet must be even and at least 2, not 5."
    expected = "method.past and method.future are numbers of utterances, not -1 and 2."
    assert fault(GCNet, SIZES, 1, past=-1) == expected
    assert fault(GCNet, SIZES, 1, dropout=1.0) == "method.dropout must be at least 0 and below 1, not 1.0."


# ------------------------------------------------------------------------------------------------------ speakers


def spoken(inputs: Mapping[str, Observed], speakers: str) -> dict[str, Observed]:
    """The inputs with the speaker of each utterance of the batch, a letter each."""
    return {
        name: replace(observed, speakers=tuple(speakers[row] for row in observed.indices.tolist()))
        for name, observed in inputs.items()
    }


def test_speakers_change_the_prediction_and_their_names_do_not():
    network, inputs, groups = small(speakers=2), inputs_of(PRESENCE), ["a"] * 4 + ["b"] * 2
    outputs = [
        predict(network, spoken(inputs, speakers), PRESENCE, groups)
        for speakers in ("MFMMFF", "FMFFMM", "XYXXZZ", "MMMMFF")
    ]
    # The first three are alike: who speaks second in conversation a is the other one, and b has one speaker.
    close(outputs[1], outputs[0])
    close(outputs[2], outputs[0])
    assert (outputs[3] - outputs[0])[:4].abs().max() > 1e-6
    close(outputs[3][4:], outputs[0][4:])


def test_two_speakers_have_four_relations():
    # By hand: a relation is one more matrix of 2 x width by width / 2, so three more of 8 x 2.
    assert count(small(speakers=2)) - count(small()) == 3 * 8 * 2


def test_speakers_that_are_not_named_or_too_many_are_refused(fault):
    network, inputs, groups = small(speakers=2), inputs_of(PRESENCE), ["a"] * 6
    assert fault(predict, network, inputs, PRESENCE, groups) == (
        "method.speakers is 2, and the samples do not say who speaks."
    )
    assert fault(predict, network, spoken(inputs, "MFXMFF"), PRESENCE, groups) == (
        "A conversation has 3 speakers, and method.speakers is 2."
    )
    for options in ({"speakers": 0}, {"speakers": 2, "conversation": False}):
        assert fault(GCNet, SIZES, 1, **options) == (
            f"method.speakers is 1 or more, and 1 without conversations, not {options['speakers']}."
        )
