"""Taught sharing: stages, the loss of a case by hand, and what is refused."""

from math import log
from pathlib import Path

import pytest
import torch
from torch.testing import assert_close

from anysubset import api
from anysubset.batches import Batch, Observed
from anysubset.errors import InputError
from anysubset.experiments.files import write_experiment
from anysubset.methods.creation import create_method
from anysubset.methods.method import Step
from anysubset.methods.taught import Taught, distil
from anysubset.system import tensor_file
from anysubset.tasks.prediction import Prediction, Stream
from anysubset.tasks.segmentation import Segmentation

NAMES = ("a", "b")
STREAMS = {"a": Stream("vector", 2), "b": Stream("vector", 3)}
CLASSES = Prediction(NAMES, STREAMS, ("no", "yes"))
NUMBER = Prediction(NAMES, STREAMS)
REGIONS = Segmentation(NAMES, {"tumour": (1,)}, (8, 8))
STUDENT = Step(stage="student", cases=(("a",), NAMES))


def taught(task: Prediction = CLASSES, **options: object) -> Taught:
    torch.manual_seed(0)
    method, _ = create_method("taught", task, {"width": 4, **options})
    assert isinstance(method, Taught)
    return method


def batch() -> Batch:
    """Three samples, of which the second one has no b."""
    generator = torch.Generator().manual_seed(0)
    inputs = {
        "a": Observed(torch.randn(3, 2, generator=generator), torch.arange(3)),
        "b": Observed(torch.randn(2, 3, generator=generator), torch.tensor([0, 2])),
    }
    return Batch(inputs, torch.tensor([0, 1, 1]), ["x", "y", "z"])


# -------------------------------------------------------------------------------------------------- distillation


def test_the_distance_of_class_probabilities_is_a_divergence():
    # At T = 2 the logits 2 ln 3 and 0 are the probabilities 3/4 and 1/4; those of the student are 1/2 and 1/2.
    # T^2 (3/4 ln(3/2) + 1/4 ln(1/2)) = 4 (0.304099 - 0.173287)
    student, teacher = torch.zeros(1, 2), torch.tensor([[2 * log(3), 0.0]])
    assert_close(distil(CLASSES, student, teacher, 2.0), torch.tensor(0.523248), rtol=0, atol=1e-6)
    assert_close(distil(CLASSES, teacher + 7, teacher, 2.0), torch.tensor(0.0), rtol=0, atol=1e-6)


def test_the_distance_of_regions_is_averaged_over_voxels():
    # One voxel as above and one where they agree.
    student, teacher = torch.tensor([[[0.0, 5.0]]]), torch.tensor([[[2 * log(3), 5.0]]])
    assert_close(distil(REGIONS, student, teacher, 2.0), torch.tensor(0.261624), rtol=0, atol=1e-6)


def test_the_distance_of_numbers_is_the_loss_of_the_task():
    assert distil(NUMBER, torch.tensor([[1.0], [3.0]]), torch.tensor([[2.0], [3.0]]), 2.0) == 0.5


# ------------------------------------------------------------------------------------------------------ training


def test_experts_are_trained_first_as_those_of_the_ensemble():
    method = taught()
    assert [(stage.name, stage.share) for stage in method.stages] == [("experts", 0.5), ("student", 0.5)]
    method.enter("experts")
    step = Step(stage="experts")
    assert method.draw(torch.Generator()) == ()
    assert list(method.objectives(step)) == ["a", "b"]
    sum(method.losses(batch(), step).values()).backward()  # type: ignore[union-attr]
    assert all(parameter.grad is not None for parameter in method.teacher.parameters())
    assert all(parameter.grad is None for parameter in method.network.parameters())
    method.eval()
    assert torch.equal(method.predict(batch().inputs), method.teacher.predict(batch().inputs))


def test_the_loss_of_a_case_is_that_of_the_task_plus_the_distance_from_the_experts_of_the_case():
    method = taught(distillation=3.0).eval()
    inputs, target = batch().inputs, batch().target
    losses = method.losses(batch(), STUDENT)
    expert = {name: method.teacher.experts[name]({name: observed.values}) for name, observed in inputs.items()}
    alone = method.network({"a": inputs["a"].values})
    assert_close(losses["a"], CLASSES.loss(alone, target) + 3 * distil(CLASSES, alone, expert["a"], 2.0))
    rows = torch.tensor([0, 2])
    both = method.network({"a": inputs["a"].values[rows], "b": inputs["b"].values})
    lesson = (expert["a"][rows] + expert["b"]) / 2
    assert_close(losses["a+b"], CLASSES.loss(both, target[rows]) + 3 * distil(CLASSES, both, lesson, 2.0))


def test_experts_that_teach_do_not_change():
    method = taught().train()
    method.enter("student")
    assert not method.teacher.training
    assert method.network.training
    sum(method.losses(batch(), STUDENT).values()).backward()  # type: ignore[union-attr]
    assert all(parameter.grad is None for parameter in method.teacher.parameters())
    method.enter("experts")
    assert method.teacher.training


def test_without_distillation_the_network_is_trained_as_by_sharing():
    torch.manual_seed(0)
    sharing, _ = create_method("sharing", CLASSES, {"width": 4})
    expected = sharing.eval().losses(batch(), STUDENT)
    losses = taught(distillation=0.0).eval().losses(batch(), STUDENT)
    assert losses.keys() == expected.keys()
    assert all(torch.equal(losses[name], expected[name]) for name in losses)


def test_the_trained_run_holds_the_network_alone(make_table_experiment, tmp_path: Path):
    settings = {"method.name": "taught", "method.width": 4, "train.steps": 4, "train.validate_every": 1}
    write_experiment(make_table_experiment(settings), tmp_path / "taught.yaml")
    api.fit(tmp_path / "taught.yaml", run=tmp_path / "run")
    tensors, _ = tensor_file.load(tmp_path / "run/checkpoints/best.safetensors")
    trained = api.load(tmp_path / "run")
    assert isinstance(trained, Taught)
    assert set(tensors) == {f"network.{name}" for name in trained.network.state_dict()}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"distillation": -1.0}, "method.distillation is a weight of 0 or more, not -1.0."),
        ({"temperature": 0.0}, "method.temperature must be above 0, not 0.0."),
        ({"cases": "sample"}, "method.cases of `taught` are scenarios of a step, such as all or random=3, not sample."),
    ],
)
def test_options_out_of_range_are_refused(options: dict[str, object], message: str):
    with pytest.raises(InputError, match=message):
        taught(**options)
