"""Network and loss of GCNet, the graph completion network, without a graph library.

Lian, Chen, Sun, Liu and Tao, "GCNet: Graph Completion Network for Incomplete Multimodal Learning in Conversation",
IEEE TPAMI 2023.

The vectors of an utterance are concatenated, with zeros for missing modalities, as published. A bidirectional LSTM runs
over each conversation. Then two parallel blocks of graph convolutions connect every utterance with its neighbours. A
linear layer predicts from the sum of their features, and another one reconstructs the vectors of all modalities.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from anysubset.batches import Observed, eligible, keep, present_by_sample, sample_count
from anysubset.errors import InputError
from anysubset.models.conversation_graph import (
    TIMES,
    GraphConvolution,
    RelationalConvolution,
    by_appearance,
    speaker_edges,
    temporal_edges,
)
from anysubset.models.conversations import BiLSTM, layout_of
from anysubset.models.encoders import MeanEncoder
from anysubset.models.network import Encoded, Network, Tree, tree_map
from anysubset.scenarios import Scenario

WIDTH = 100


class Utterances(NamedTuple):
    """One modality of n utterances.

    vectors: (n, size). conversation, speaker: (n,) int64 on the CPU: numbers of the conversation and of the speaker of
        each utterance; speaker is None if the network does not tell speakers apart.
    """

    vectors: Tensor
    conversation: Tensor
    speaker: Tensor | None = None


class Completed(NamedTuple):
    """Output for n utterances.

    output: (n, outputs), logits of classes or numbers.
    vectors: (n, sum of sizes), reconstructed vectors of all modalities, concatenated.
    shown: (n, modalities) bool, the modalities that the network got.
    """

    output: Tensor
    vectors: Tensor
    shown: Tensor


class GCNet(Network):
    """LSTM over the concatenated vectors, two graph blocks, and a linear layer each for prediction and reconstruction.

    8,350,711 parameters for vectors of 512, 1024 and 1024 entries; 8,851,711 with attention. All of them serve all
    modalities.

    Args:
        sizes: entries of the vector, or features of a step, by modality; a sequence is averaged over its valid steps.
        outputs: number of outputs of the head.
        width: size of the state of the LSTM in one direction; even.
        past: number of earlier utterances that are neighbours of an utterance.
        future: number of later utterances that are neighbours of an utterance.
        dropout: of the states of the first layer of the LSTM.
        attention: whether each utterance attends to all of its conversation at the end of a block.
        speakers: number of speakers of a conversation that are told apart, in the order of their first utterances.
        conversation: whether the samples of a group are a conversation; otherwise each is one of its own.
        packed: as in `BiLSTM`.
        swap_windows: whether `past` and `future` are exchanged, as in the published program.
    """

    def __init__(
        self,
        sizes: Mapping[str, int],
        outputs: int,
        *,
        width: int = WIDTH,
        past: int = 2,
        future: int = 2,
        dropout: float = 0.5,
        attention: bool = False,
        speakers: int = 1,
        conversation: bool = True,
        packed: bool = True,
        swap_windows: bool = False,
    ) -> None:
        super().__init__(sizes)
        if width < 2 or width % 2:
            raise InputError(f"method.width of GCNet must be even and at least 2, not {width}.")
        if min(past, future) < 0:
            raise InputError(f"method.past and method.future are numbers of utterances, not {past} and {future}.")
        if not 0 <= dropout < 1:
            raise InputError(f"method.dropout must be at least 0 and below 1, not {dropout}.")
        if speakers < 1 or (speakers > 1 and not conversation):
            raise InputError(f"method.speakers is 1 or more, and 1 without conversations, not {speakers}.")
        self.unit = "group" if conversation else "sample"
        self.speakers = speakers
        self.sizes = tuple(sizes.values())
        self.window = (future, past) if swap_windows else (past, future)
        self.encoders = nn.ModuleDict({modality: MeanEncoder(size) for modality, size in sizes.items()})
        self.lstm = BiLSTM(sum(self.sizes), width, dropout, packed)
        self.temporal = Block(2 * width, width // 2, TIMES, attention, packed)
        self.speaker = Block(2 * width, width // 2, speakers**2, attention, packed)
        features = 2 * width + width // 2
        self.head = nn.Linear(features, outputs)
        self.reconstruction = nn.Linear(features, sum(self.sizes))

    def features(
        self,
        inputs: Mapping[str, Observed],
        call: Callable[..., Tree] = lambda encode, *arguments: encode(*arguments),
        groups: Sequence[str] | None = None,
    ) -> dict[str, Encoded]:
        """The vectors, conversations and, if they are told apart, speakers of the utterances; see `Network.features`.

        Raises:
            InputError: if a modality is unknown, or speakers are told apart and not named.
        """
        encoded = super().features(inputs, call, groups)
        if self.speakers == 1:
            return encoded
        names: dict[str, int] = {}
        for modality, (utterances, indices) in encoded.items():
            named = inputs[modality].speakers
            if named is None:
                raise InputError(f"method.speakers is {self.speakers}, and the samples do not say who speaks.")
            numbers = [names.setdefault(name, len(names)) for name in named]
            encoded[modality] = Encoded(utterances._replace(speaker=torch.tensor(numbers)), indices)
        return encoded

    def encode(
        self, modality: str, x: Tensor, valid: Tensor | None = None, conversation: Tensor | None = None
    ) -> Utterances:
        """The vectors (n, size) of n utterances, and their conversations; by default they are of one conversation."""
        vectors = self.encoders[modality](x, valid)
        if conversation is None:
            conversation = torch.zeros(len(x), dtype=torch.int64)
        return Utterances(vectors, conversation)

    def decode(self, features: Mapping[str, Utterances]) -> Completed:
        """Output for n utterances that all have the same modalities."""
        samples = len(next(iter(features.values())).vectors)
        encoded = {modality: Encoded(utterances, torch.arange(samples)) for modality, utterances in features.items()}
        return self.completed(encoded, [tuple(features)] * samples)

    def output_of_case(self, features: Mapping[str, Encoded], scenario: Scenario) -> tuple[Completed | None, Tensor]:
        """Output for the utterances that are eligible for a scenario, and their indices in the batch.

        Utterances with only some of its modalities are context for the others. Those with none of them are left out of
        their conversation, as in prediction. The output is None if no utterance is eligible.
        """
        indices = eligible(features, scenario)
        if not len(indices):
            return None, indices
        shown = keep(features, scenario)
        scenarios = present_by_sample(shown, sample_count(shown), scenario)
        complete = torch.tensor([len(own) == len(scenario) for own in scenarios if own])
        output = self.completed(shown, scenarios)
        return tree_map(lambda values: values[complete.to(values.device)], output), indices

    def output_by_sample(self, features: Mapping[str, Encoded], scenarios: Sequence[Scenario]) -> Completed:
        """Output for every utterance of a batch, each in its own scenario, from those of its conversation.

        Raises:
            InputError: if a scenario is empty.
        """
        self.check_scenarios(scenarios)
        return self.completed(features, scenarios)

    def completed(self, features: Mapping[str, Encoded], scenarios: Sequence[Scenario]) -> Completed:
        """Output for the utterances with a modality in their scenario, in the order of the batch."""
        x, shown = self.concatenated(features, scenarios)
        present = shown.any(dim=1)
        x, shown = x[present.to(x.device)], shown[present]
        conversation, speaker = self.context(features, len(scenarios))[:, present]
        if self.unit == "sample":
            conversation = torch.arange(len(conversation))
        layout = layout_of(conversation)
        states = self.lstm(layout.padded(x), layout.lengths)
        edges = temporal_edges(layout.valid, *self.window).to(x.device)
        hidden = self.temporal(states, edges, layout.lengths)
        speaker = layout.padded(by_appearance(conversation, speaker, self.speakers))
        spoken = speaker_edges(edges.any(dim=1), speaker.to(x.device), self.speakers)
        hidden = hidden + self.speaker(states, spoken, layout.lengths)
        hidden = layout.utterances(hidden)
        return Completed(self.head(hidden), self.reconstruction(hidden), shown.to(x.device))

    def concatenated(self, features: Mapping[str, Encoded], scenarios: Sequence[Scenario]) -> tuple[Tensor, Tensor]:
        """Concatenate the vectors of the modalities in the scenario of each utterance of a batch.

        Returns:
            (n, sum of sizes), 0 where a modality is not in the scenario; and (n, modalities) bool on the CPU, true
            where it is.
        """
        samples = len(scenarios)
        first = next(iter(features.values())).values.vectors
        shown = torch.zeros(samples, len(self.modalities), dtype=torch.bool)
        parts = []
        for position, (modality, size) in enumerate(zip(self.modalities, self.sizes, strict=True)):
            part = first.new_zeros(samples, size)
            if modality in features:
                (vectors, *_), indices = features[modality]
                used = torch.tensor([modality in scenarios[index] for index in indices.tolist()], dtype=torch.bool)
                shown[indices[used], position] = True
                part = part.index_put((indices[used].to(part.device),), vectors[used.to(part.device)])
            parts.append(part)
        return torch.cat(parts, dim=1), shown

    def context(self, features: Mapping[str, Encoded], samples: int) -> Tensor:
        """The conversation and the speaker of each utterance of a batch: (2, samples) int64 on the CPU."""
        context = torch.zeros(2, samples, dtype=torch.int64)
        for (_, conversation, speaker), indices in features.values():
            context[0, indices] = conversation
            if speaker is not None:
                context[1, indices] = speaker
        return context


class Block(nn.Module):
    """Two graph convolutions, their input beside their output, LSTM, optional attention, linear, ReLU.

    Args:
        size: features of an utterance.
        hidden: features of the graph convolutions.
        relations: number of kinds of edges.
        attention: whether each utterance attends to all of its conversation after the LSTM.
        packed: as in `BiLSTM`.
    """

    def __init__(self, size: int, hidden: int, relations: int, attention: bool, packed: bool) -> None:
        super().__init__()
        width = size + hidden
        self.relational = RelationalConvolution(size, hidden, relations)
        self.graph = GraphConvolution(hidden, hidden)
        self.lstm = BiLSTM(width, width, packed=packed)
        self.attention = ConversationAttention(2 * width) if attention else None
        self.linear = nn.Linear(2 * width, width)

    def forward(self, x: Tensor, edges: Tensor, lengths: Tensor) -> Tensor:
        """(conversations, longest, size) -> (conversations, longest, size + hidden).

        Args:
            x: features of the utterances.
            edges: (conversations, relations, longest, longest) bool, true if the column is a neighbour of
                the row.
            lengths: (conversations,) int64 on the CPU.
        """
        convolved = self.graph(self.relational(x, edges), edges.any(dim=1))
        states = self.lstm(torch.cat([x, convolved], dim=-1), lengths)
        if self.attention is not None:
            valid = torch.arange(x.shape[1]) < lengths[:, None]
            states = self.attention(states, valid.to(x.device))
        return functional.relu(self.linear(states))


class ConversationAttention(nn.Module):
    """Mean of all utterances j of a conversation, for utterance t weighted by softmax of tanh(x_j . (W x_t + b))."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.linear = nn.Linear(size, size)

    def forward(self, x: Tensor, valid: Tensor) -> Tensor:
        """(n, utterances, size), (n, utterances) bool -> (n, utterances, size)."""
        scores = self.linear(x) @ x.transpose(1, 2)
        return attention_weights(scores, valid[:, None]) @ x


def attention_weights(scores: Tensor, valid: Tensor) -> Tensor:
    """Softmax of tanh(scores) over the valid entries of the last dimension; two weights differ by at most e^2 = 7.4."""
    return scores.tanh().masked_fill(~valid, float("-inf")).softmax(dim=-1)


def reconstruction_loss(vectors: Tensor, target: Tensor, counted: Tensor, sizes: Sequence[int]) -> Tensor:
    """Mean squared error of each counted modality, summed over the modalities, as a mean over all n utterances.

    Args:
        vectors: (n, sum of sizes), reconstructed.
        target: (n, sum of sizes).
        counted: (n, modalities) bool.
        sizes: entries of each modality.
    """
    squares = (vectors.to(torch.promote_types(vectors.dtype, torch.float32)) - target).square()
    by_modality = torch.stack([part.mean(dim=1) for part in squares.split(list(sizes), dim=1)], dim=1)
    return (by_modality * counted).sum(dim=1).mean()
