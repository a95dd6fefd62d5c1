"""MMIN: a student network predicts ("imagines") the features of missing modalities; a teacher gives their targets.

Zhao, Li and Jin, "Missing Modality Imagination Network for Emotion Recognition with Uncertain Missing Modalities",
ACL 2021; for one vector per modality as rerun by the authors of GCNet (Lian et al. 2023).

The teacher is trained on complete samples. The student is initialised with the teacher's encoders. It gets a random
subset of the modalities of each sample, and predicts the teacher's features of the others.
"""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor
from torch.nn import functional

from anysubset.batches import Batch, present_by_sample
from anysubset.errors import InputError, unknown
from anysubset.methods.cases import CaseMethod
from anysubset.methods.method import Objective, Stage, Step
from anysubset.models.mmin import TARGETS, VERSIONS, WIDTH, Imagined, Student, Teacher, imagination_loss
from anysubset.models.network import Encoded, Tree
from anysubset.scenarios import BY_SAMPLE, Scenario, draw_scenario, scenario_name
from anysubset.tasks.prediction import Prediction, check_streams

PATTERNS = ("all", "incomplete")


class MMIN(CaseMethod):
    """Trains a teacher, then a student, which makes the predictions.

    Args:
        task: modalities, loss and prediction of the data set; every modality must be a vector or a sequence.
        cases: `sample` or `sample=size` to draw a scenario for each sample; or the scenarios of a step (`all`, `full`,
            `missing=R` or `random=K`), where the loss of a case includes its imagination and cycle losses.
            `CaseMethod` explains them.
        patterns: which scenarios may be drawn for a sample: `all`, or `incomplete`, all but the full one, as published.
        version: encoders of the modalities: `sequence`, or `utterance` for one vector per sample. By default
            `utterance` if every modality is a vector, else `sequence`.
        width: number of features of a modality.
        imagine: weight of the imagination loss, between imagined features and the teacher's features.
        cycle: weight of the cycle loss, between the features regained from imagined ones and the student's own.
        target: modalities whose features enter the imagination loss: the `absent` ones, or `all`, as published.
        share_cascade: whether the cascades of autoencoders in both directions share their parameters, as published for
            one of three data sets.

    Raises:
        InputError: if an option is out of range, or the modalities are not vectors or sequences.
    """

    fits = (Prediction,)
    # As published for sequences, the teacher takes 20 of 80 epochs.
    stages = (Stage("teacher", 0.25, scored=False), Stage("student", 0.75))
    network: Student
    task: Prediction

    def __init__(
        self,
        task: Prediction,
        *,
        cases: str = "sample",
        patterns: str = "all",
        version: str | None = None,
        width: int = WIDTH,
        imagine: float = 4.0,
        cycle: float = 2.0,
        target: str = "absent",
        share_cascade: bool = False,
    ) -> None:
        if patterns not in PATTERNS:
            raise unknown("method.patterns", patterns, PATTERNS)
        if target not in TARGETS:
            raise unknown("method.target", target, TARGETS)
        if min(imagine, cycle) < 0:
            raise InputError(f"method.imagine and method.cycle are weights of 0 or more, not {imagine} and {cycle}.")
        if len(task.modalities) < 2:
            raise InputError("MMIN imagines one modality from others, so it needs two or more; these data have one.")
        if patterns == "incomplete" and cases not in BY_SAMPLE:
            raise InputError(
                f"method.patterns incomplete is for scenarios that are drawn by sample, not for method.cases {cases}."
            )
        sizes = {modality: task.streams[modality].size for modality in task.modalities}
        version = version or default_version(task)
        if version not in VERSIONS:
            raise unknown("method.version", version, VERSIONS)
        # `utterance` averages sequences over time.
        kinds = ("vector", "sequence") if version == "utterance" else ("sequence",)
        hints = {"vector": "set method.version to utterance"} if version == "sequence" else {}
        check_streams(task, f"MMIN with encoders of version {version!r}", kinds, hints)
        outputs = task.outputs
        super().__init__(task, Student(sizes, outputs, version, width, share_cascade), cases=cases)
        self.teacher = Teacher(sizes, outputs, version, width)
        self.patterns = patterns
        self.imagine = imagine
        self.cycle = cycle
        self.target = target

    # ---------------------------------------------------------------------------------------------- training

    def enter(self, stage: str) -> None:
        """At the start of stage `student`, copy the teacher's encoders into the student and freeze the teacher."""
        if stage == "student":
            self.network.encoders.load_state_dict(self.teacher.encoders.state_dict())
            self.teacher.requires_grad_(False)

    def objectives(self, step: Step) -> dict[str, Objective]:
        """The objectives of the current stage.

        The teacher has one. The student has one per case; or, if scenarios are drawn by sample, one for each of the
        three terms of its loss.
        """
        if step.stage == "teacher":
            return {"teacher": Objective(self.task.modalities)}
        if step.cases:
            return {scenario_name(case): Objective(case, case=True) for case in step.cases}
        return {
            "task": Objective(case=True),
            "imagine": Objective(weight=self.imagine),
            "cycle": Objective(weight=self.cycle),
        }

    def losses(self, batch: Batch, step: Step) -> dict[str, Tensor]:
        """The mean loss of each objective of the current stage that has samples in the batch."""
        if step.stage == "teacher":
            features = self.teacher.features(batch.inputs)
            output, indices = self.teacher.output_of_case(features, self.task.modalities)
            return {"teacher": self.task.loss(output, batch.target[indices])} if len(indices) else {}
        features = self.features(batch, step, whole=True)
        if step.cases:
            return self.losses_of_cases(features, batch, step)
        present = present_by_sample(batch.inputs, len(batch.target), self.task.modalities)
        shown = [self.drawn(own, step.chance(sample)) for own, sample in zip(present, batch.ids, strict=True)]
        output = self.network.output_by_sample(features, shown)
        return self.terms(output, batch.target, shown, *self.teacher_features(batch))

    def losses_of_cases(self, features: Mapping[str, Encoded], batch: Batch, step: Step) -> dict[str, Tensor]:
        """The weighted sum of the three terms for each case; a case without eligible samples has no key."""
        losses = {}
        target, measured = self.teacher_features(batch)
        for case in step.cases:
            output, indices = self.network.output_of_case(features, case)
            if len(indices):
                shown = [case] * len(indices)
                terms = self.terms(output, batch.target[indices], shown, target[indices], measured[indices])
                losses[scenario_name(case)] = (
                    terms["task"] + self.imagine * terms["imagine"] + self.cycle * terms["cycle"]
                )
        return losses

    def drawn(self, present: Scenario, generator: torch.Generator) -> Scenario:
        """Draw the modalities of a sample that the student gets; never all of them with `patterns: incomplete`."""
        shown = draw_scenario(present, self.cases, generator)
        while self.patterns == "incomplete" and len(shown) == len(self.task.modalities):
            shown = draw_scenario(present, self.cases, generator)
        return shown

    def terms(
        self, output: Tree, target: Tensor, shown: Sequence[Scenario], imagine_target: Tensor, measured: Tensor
    ) -> dict[str, Tensor]:
        """The unweighted terms of the student's loss, each a mean over n samples: task, imagination and cycle.

        Args:
            output: of the student.
            target: (n, ...), of the task.
            shown: the modalities of each sample that the student gets.
            imagine_target: (n, modalities, width), the teacher's features; 0 where a sample lacks a modality.
            measured: (n, modalities) bool, whether a sample has a modality.
        """
        assert isinstance(output, Imagined)
        visible = torch.tensor([[modality in own for modality in self.task.modalities] for own in shown])
        visible = visible.to(measured.device)
        if self.target == "all":
            imagine_target = imagine_target.where(~visible[..., None], self.teacher_features_of_zeros())
        slots = output.imagined.unflatten(1, (len(self.task.modalities), -1))
        returned = self.network.returned(output.imagined)
        return {
            "task": self.task.loss(output.output, target),
            "imagine": imagination_loss(slots, imagine_target, visible, measured, self.target),
            "cycle": functional.mse_loss(returned, output.features.detach()),
        }

    @torch.no_grad()
    def teacher_features(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """The features of the frozen teacher, and which modalities each sample has.

        Returns:
            (n, modalities, width), 0 where a sample lacks a modality; and (n, modalities) bool, true where it has one.
        """
        self.teacher.eval()
        encoded = self.teacher.features(batch.inputs)
        first = next(iter(encoded.values())).values
        count, modalities = len(batch.target), self.task.modalities
        features = first.new_zeros(count, len(modalities), first.shape[1])
        measured = torch.zeros(count, len(modalities), dtype=torch.bool, device=first.device)
        for position, modality in enumerate(modalities):
            if modality in encoded:
                indices = encoded[modality].indices.to(first.device)
                features[indices, position] = encoded[modality].values
                measured[indices, position] = True
        return features, measured

    @torch.no_grad()
    def teacher_features_of_zeros(self) -> Tensor:
        """The teacher's features of inputs of zeros, (modalities, width).

        With `target: all`, as in the published program, the imagined features of modalities that the student is shown
        are drawn towards these.
        """
        self.teacher.eval()
        encoders = self.teacher.encoders
        return torch.cat([encoders.features_of_zeros(modality, 1) for modality in self.task.modalities])

    # -------------------------------------------------------------------------------------------- prediction

    def carried(self, output: Tree) -> Tensor:
        """The student's prediction, (n, outputs): logits of the classes, or one number."""
        assert isinstance(output, Imagined)
        return output.output

    def prediction_state(self) -> dict[str, Tensor]:
        """The part of `state_dict()` that prediction needs: the student, without the cascade of the cycle loss."""
        unused = ("teacher.", "network.back.")
        return {name: value for name, value in self.state_dict().items() if not name.startswith(unused)}


def default_version(task: Prediction) -> str:
    """`utterance` if every modality is a vector, else `sequence`."""
    return "utterance" if all(stream.kind == "vector" for stream in task.streams.values()) else "sequence"
