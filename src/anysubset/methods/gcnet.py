"""GCNet: graph convolutions over the utterances of a conversation, which also reconstruct the missing modalities.

Lian, Chen, Sun, Liu and Tao, "GCNet: Graph Completion Network for Incomplete Multimodal Learning in Conversation",
IEEE TPAMI 2023.

A group of the data, such as the utterances of a video, is a conversation. Differences from the published program:

- Modalities are hidden by drawing a scenario for each utterance; the program hides them at a fixed rate.
- The LSTMs stop at the end of a conversation. In the program they run over the padding (`packed: false`).
- An utterance has `past` earlier and `future` later neighbours; in the program the other way round
  (`swap_windows: true`).
- The kinds of edges always have the same order. In the program it may change between processes.
- A modality that the data lack has no target of reconstruction, and that term drops out.
"""

from collections.abc import Mapping

import torch
from torch import Tensor

from anysubset.batches import Batch, present_by_sample
from anysubset.errors import InputError
from anysubset.methods.cases import DRAWN, CaseMethod
from anysubset.methods.method import Objective, Step
from anysubset.models import gcnet
from anysubset.models.gcnet import WIDTH, Completed, reconstruction_loss
from anysubset.models.network import Encoded, Tree
from anysubset.tasks.prediction import Prediction

RECONSTRUCTION = "reconstruction"  # Name of the objective.


class GCNet(CaseMethod):
    """Predicts every utterance from its conversation, and learns to reconstruct the modalities that it was not shown.

    Args:
        task: modalities, loss and prediction of the data set; every modality must be a vector, or a sequence, which is
            averaged over time.
        cases: `sample` or `sample=size` to draw a scenario for each utterance; or the scenarios of a step (`all`,
            `full`, `missing=R` or `random=K`), where the loss of a case includes its reconstruction. `CaseMethod`
            explains them.
        width: size of the state of the first LSTM in one direction; 50, 100 or 200 in the paper.
        past: number of earlier utterances that are neighbours of an utterance in the graph.
        future: number of later utterances that are neighbours of an utterance in the graph.
        dropout: of the first LSTM, between its layers.
        attention: whether each utterance attends to all of its conversation at the end of a block.
        reconstruction: weight of the reconstruction loss.
        speakers: number of speakers of a conversation that are told apart, for data that name them: the edges between
            each pair of speakers have weights of their own. With 1, who speaks is not looked at.
        conversation: whether the samples of a group are a conversation. With `false`, for data without groups, each
            sample is a conversation of its own, whose graph connects it to itself alone.
        packed: whether LSTMs stop at the end of a conversation; `false` as in the published program.
        swap_windows: whether `past` and `future` are exchanged, as in the published program.

    Raises:
        InputError: if an option is out of range, or a modality is neither a vector nor a sequence.
    """

    fits = (Prediction,)
    unit = "group"
    without_groups = "set method.conversation to false"
    network: gcnet.GCNet
    task: Prediction

    def __init__(
        self,
        task: Prediction,
        *,
        cases: str = "sample",
        width: int = WIDTH,
        past: int = 2,
        future: int = 2,
        dropout: float = 0.5,
        attention: bool = False,
        reconstruction: float = 1.0,
        speakers: int = 1,
        conversation: bool = True,
        packed: bool = True,
        swap_windows: bool = False,
    ) -> None:
        if not reconstruction >= 0:
            raise InputError(f"method.reconstruction is a weight of 0 or more, not {reconstruction}.")
        network = gcnet.GCNet(
            sizes_of(task),
            task.outputs,
            width=width,
            past=past,
            future=future,
            dropout=dropout,
            attention=attention,
            speakers=speakers,
            conversation=conversation,
            packed=packed,
            swap_windows=swap_windows,
        )
        super().__init__(task, network, cases=cases)
        self.reconstruction = reconstruction
        self.speakers = speakers

    # ---------------------------------------------------------------------------------------------- training

    def objectives(self, step: Step) -> dict[str, Objective]:
        """One per case; or, if scenarios are drawn by utterance, one for the task and one for the reconstruction."""
        if step.cases:
            return super().objectives(step)
        return {DRAWN: Objective(case=True), RECONSTRUCTION: Objective(weight=self.reconstruction)}

    def losses(self, batch: Batch, step: Step) -> dict[str, Tensor]:
        """The mean loss of each objective over its eligible utterances in the batch."""
        features = self.features(batch, step, whole=True)
        if step.cases:
            return self.losses_of_cases(features, batch, step)
        output = self.network.output_by_sample(features, self.drawn_scenarios(batch, step))
        loss, reconstruction = self.terms(output, torch.arange(len(batch.target)), features, batch)
        return {DRAWN: loss, RECONSTRUCTION: reconstruction}

    def features(self, batch: Batch, step: Step, whole: bool) -> dict[str, Encoded]:
        """The vectors of all modalities, since those that a case lacks are reconstructed.

        Encoders have no parameters, so a gradient rule has nothing to batch or recompute.
        """
        return self.network.features(batch.inputs, groups=batch.groups)

    def loss_of_samples(
        self, output: Tree, indices: Tensor, features: Mapping[str, Encoded], batch: Batch, step: Step
    ) -> Tensor:
        """The loss of a case: of the task, plus the weighted reconstruction of the modalities that it lacks."""
        loss, reconstruction = self.terms(output, indices, features, batch)
        return loss + self.reconstruction * reconstruction

    def terms(
        self, output: Tree, indices: Tensor, features: Mapping[str, Encoded], batch: Batch
    ) -> tuple[Tensor, Tensor]:
        """The loss of the task and the reconstruction loss, each a mean over n utterances.

        Args:
            output: of the network for these utterances.
            indices: (n,) of the utterances in the batch.
            features: vectors of the batch.
            batch: the utterances and their targets.
        """
        assert isinstance(output, Completed)
        present = present_by_sample(features, len(batch.target), self.task.modalities)
        vectors, measured = self.network.concatenated(features, present)
        rows = indices.to(vectors.device)
        hidden = measured.to(vectors.device)[rows] & ~output.shown
        reconstruction = reconstruction_loss(output.vectors, vectors[rows], hidden, self.network.sizes)
        return self.task.loss(output.output, batch.target[rows.to(batch.target.device)]), reconstruction

    # -------------------------------------------------------------------------------------------- prediction

    def carried(self, output: Tree) -> Tensor:
        """The prediction, (n, outputs): logits of the classes, or one number."""
        assert isinstance(output, Completed)
        return output.output


def sizes_of(task: Prediction) -> dict[str, int]:
    """Entries of the vector of each modality.

    Raises:
        InputError: if a modality is neither a vector nor a sequence.
    """
    for modality, stream in task.streams.items():
        if stream.kind not in ("vector", "sequence"):
            raise InputError(
                f"GCNet takes vectors, and sequences, which it averages over time; {modality!r} is of kind "
                f"{stream.kind}: give vectors, computed by a pretrained network, or leave it out of data.modalities."
            )
    return {modality: task.streams[modality].size for modality in task.modalities}
