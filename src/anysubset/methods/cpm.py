"""CPM-Nets: latent vectors from which decoders reproduce the modalities, and which separate the classes.

Zhang et al., "CPM-Nets: Cross Partial Multi-View Networks", NeurIPS 2019.

There is no encoder. Every training sample owns a latent vector, a parameter. Training alternates between the decoders
and the latent vectors, and a step takes all training samples. To predict, the latent vector of a new sample is fitted
to its present modalities; the term of a missing modality is left out. Differences from the published program:

- The latent vector of a new sample starts at 0 (`start`), so that it does not depend on how many others are predicted.
- Modalities are standardised by column, as in every method here (`scale`), and the decoders have no dropout.
- Decoders and latent vectors share one optimizer, which leaves out parameters without a gradient: with `adam` this is
  the same as two. `train.rates: {latents: R}` gives the latent vectors a learning rate of their own.
- The losses are means over the samples, not sums, which changes nothing but the eps of Adam.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from anysubset.batches import Batch, Inputs, Observed, as_observed, present_by_sample, sample_count
from anysubset.errors import InputError, unknown
from anysubset.methods.method import Method, Objective, Step
from anysubset.models import cpm
from anysubset.system import processes
from anysubset.tasks.prediction import Prediction

TURN = 5  # Steps on the decoders, then as many on the latent vectors.
SIGNS = ("negative", "positive")  # The classes of numbers.
HEADS = ("sign", "ridge")
STARTS = ("zero", "random")
SCALES = ("column", "range")
UNDEFINED = ("error", "acc7", "acc7_outward", "acc3", "acc5", "mae", "corr")  # Metrics of a sign without a scale.


class CPM(Method):
    """Trains decoders and the latent vectors of the training samples in turn, five steps each.

    The prediction is one score per class: the mean inner product of the latent vector with those of the training
    samples of the class. Numbers are divided into two classes by their sign; samples with the number 0 are left out of
    training.

    Args:
        task: modalities and classes of the data set; every modality must be a vector or a sequence, which is averaged
            over time.
        latent: length of the latent vectors.
        hidden: width of the hidden layer of the decoders; 0 for a single linear layer.
        classification: weight of the classification loss.
        head: prediction of numbers. `sign`, as published: the score of the positive class minus that of the negative
            one, of which only the sign has a meaning. `ridge`: ridge regression of the number on the latent vectors.
        start: latent vector of a new sample before it is fitted: `zero`, or `random`, as published, in a range that
            depends on the number of samples that are predicted at once.
        scale: `column` takes the modalities as they are, standardised by column. `range`, as published, divides their
            distance from the mean of all columns and samples of a batch by its range.
        fit_steps: steps of Adam that fit the latent vector of a new sample.
        fit_rate: learning rate of these steps.

    Raises:
        InputError: if an option is out of range, a modality is neither a vector nor a sequence, or `head` is `sign` for
            numbers without limits, for which no metric compares signs.
    """

    fits = (Prediction,)
    full_batch = True
    task: Prediction
    latents: nn.Parameter | None
    classes: Tensor
    numbers: Tensor
    readout: Tensor

    def __init__(
        self,
        task: Prediction,
        *,
        latent: int = 128,
        hidden: int = 150,
        classification: float = 1.0,
        head: str = "sign",
        start: str = "zero",
        scale: str = "column",
        fit_steps: int = 100,
        fit_rate: float = 0.01,
    ) -> None:
        super().__init__(task)
        for name, value, choices in (("head", head, HEADS), ("start", start, STARTS), ("scale", scale, SCALES)):
            if value not in choices:
                raise unknown(f"method.{name}", value, choices)
        if head == "ridge" and task.classes:
            raise InputError("method.head ridge is for numbers, and the target of these data is a class: leave it out.")
        if head == "sign" and not task.classes and task.limits is None:
            raise InputError(
                "CPM-Nets predict only the sign of a number, and these data have no metric of signs: set method.head "
                "to ridge, or data.name to mosi, mosei or sims if these are the data."
            )
        if latent < 1 or hidden < 0 or fit_steps < 1:
            raise InputError(
                "method.latent and method.fit_steps must be at least 1 and method.hidden at least 0, not "
                f"{latent}, {fit_steps} and {hidden}."
            )
        if classification < 0 or fit_rate <= 0:
            raise InputError(
                f"method.classification must be 0 or more and method.fit_rate above 0, not {classification} and "
                f"{fit_rate}."
            )
        for modality, stream in task.streams.items():
            if stream.kind not in ("vector", "sequence"):
                raise InputError(f"CPM-Nets take vectors or sequences; {modality!r} is of kind {stream.kind}.")
        sizes = {modality: task.streams[modality].size for modality in task.modalities}
        self.network = cpm.CPMNetwork(sizes, latent, hidden)
        self.names = task.classes or SIGNS
        self.classification = classification
        self.head = head
        self.start = start
        self.scale = scale
        self.fit_steps = fit_steps
        self.fit_rate = fit_rate
        self.rows: dict[str, int] = {}  # Of the training samples, by id.
        self.register_parameter("latents", None)
        self.register_buffer("readout", torch.zeros(task.outputs, latent + 1))
        self.undefined_metrics = UNDEFINED if not task.classes and head == "sign" else ()

    # ---------------------------------------------------------------------------------------------- training

    def begin(self, ids: Sequence[str]) -> None:
        """Make the table of latent vectors, one row for each training sample."""
        self.rows = {sample: row for row, sample in enumerate(ids)}
        self.latents = nn.Parameter(cpm.initial_latents(len(ids), self.network.latent))
        self.register_buffer("classes", torch.full((len(ids),), -1))  # -1: not seen yet, or the number 0.
        self.register_buffer("numbers", torch.zeros(len(ids)))

    def objectives(self, step: Step) -> dict[str, Objective]:
        """Reconstruction of all samples; and their classification in steps on the latent vectors."""
        reconstruction = {"reconstruction": Objective()}
        if trains_decoders(step):
            return reconstruction
        return reconstruction | {"classification": Objective(weight=self.classification)}

    def losses(self, batch: Batch, step: Step) -> dict[str, Tensor]:
        """The mean loss of each objective over the batch, in which a sample without a class counts as 0.

        Raises:
            InputError: if a class has fewer than two training samples.
        """
        assert self.latents is not None
        self.remember(batch)
        if not batch.ids:
            return {}
        rows = self.rows_of(batch.ids)
        member = cpm.membership(self.classes, len(self.names))
        has_class = member[rows].any(dim=1)
        if len(batch.ids) == len(self.rows) or not trains_decoders(step):
            self.check_classes(member.sum(dim=0).tolist())
        latents = self.latents[rows]
        losses = {"reconstruction": self.network.errors(latents, self.targets(batch.inputs))}
        if not trains_decoders(step):
            scores = cpm.training_scores(latents, member[rows], *cpm.class_sums(self.latents, member))
            losses["classification"] = cpm.classification_losses(scores, self.classes[rows].clamp(min=0))
        return {name: loss[has_class].sum() / len(batch.ids) for name, loss in losses.items()}

    def finish(self, step: Step) -> None:
        """Remove the gradients of the parameters whose turn it is not, so that the optimizer leaves them out."""
        assert self.latents is not None
        for parameter in [self.latents] if trains_decoders(step) else self.network.parameters():
            parameter.grad = None

    def remember(self, batch: Batch) -> None:
        """Store the targets of the samples of a batch, on all ranks alike; class scores need those of all samples."""
        for ids, target in processes.gathered([(batch.ids, batch.target.cpu())]):
            if ids:
                rows = self.rows_of(ids)
                target = target.to(self.numbers.device)
                signs = torch.where(target == 0, -1, (target > 0).long())
                self.classes[rows] = target.long() if self.task.classes else signs
                self.numbers[rows] = target.to(self.numbers)

    def rows_of(self, ids: Sequence[str]) -> Tensor:
        """Rows of training samples in the table of latent vectors, (n,)."""
        return torch.tensor([self.rows[sample] for sample in ids], device=self.classes.device)

    def check_classes(self, counts: Sequence[int]) -> None:
        """Raise InputError if a class has fewer than two samples. counts: of the training samples, by class."""
        for name, count in zip(self.names, counts, strict=True):
            if count < 2:
                kind = f"of class {name!r}" if self.task.classes else f"with a {name} number"
                raise InputError(
                    f"CPM-Nets compare a sample with others of its class, so they need two training samples of each; "
                    f"{count} {'is' if count == 1 else 'are'} {kind}."
                )

    # -------------------------------------------------------------------------------------------- prediction

    def targets(self, inputs: Inputs) -> dict[str, Observed]:
        """Vectors of the modalities, which the decoders reproduce."""
        vectors = self.network.targets(as_observed(inputs))
        if self.scale == "column":
            return vectors
        return {name: Observed(by_range(own.values), own.indices) for name, own in vectors.items()}

    def predict(self, inputs: Inputs) -> Tensor:
        """Predict every sample from the modalities that it has; the latent vectors are fitted to them.

        Args:
            inputs: by modality. A plain tensor holds all samples of the batch.

        Returns:
            (batch, classes) scores, of which the highest decides, or (batch, 1) numbers.
        """
        targets = self.targets(inputs)
        samples = sample_count(targets)
        if not samples or not all(present_by_sample(targets, samples, self.task.modalities)):
            raise InputError(f"No modality is present. Give at least one of: {', '.join(self.task.modalities)}.")
        start = torch.zeros(samples, self.network.latent)
        if self.start == "random":
            start = cpm.initial_latents(samples, self.network.latent, torch.Generator().manual_seed(0))
        latents = self.network.fit(targets, start.to(self.readout), self.fit_steps, self.fit_rate)
        return cpm.read_out(self.current_readout(), latents).to(self.readout)

    @torch.no_grad()
    def current_readout(self) -> Tensor:
        """The linear map from a latent vector to the prediction: of the training samples, or of the loaded weights."""
        if self.latents is None:
            return self.readout
        member = cpm.membership(self.classes, len(self.names))
        if self.head == "ridge":
            has_class = member.any(dim=1)
            return cpm.ridge_readout(self.latents[has_class], self.numbers[has_class])
        scores = cpm.class_readout(*cpm.class_sums(self.latents, member))
        return scores if self.task.classes else scores[1:] - scores[:1]

    def prediction_state(self) -> dict[str, Tensor]:
        """Decoders and read-out; not the latent vectors of the training samples."""
        state = {name: value for name, value in self.state_dict().items() if name.startswith("network.")}
        return {**state, "readout": self.current_readout()}


def trains_decoders(step: Step) -> bool:
    """True in steps on the decoders, False in steps on the latent vectors."""
    return step.number // TURN % 2 == 0


def by_range(x: Tensor) -> Tensor:
    """Distance of all entries from their mean, divided by the range of all entries, or by 1 if all are equal."""
    span = x.max() - x.min()
    return (x - x.mean()) / torch.where(span > 0, span, 1)
