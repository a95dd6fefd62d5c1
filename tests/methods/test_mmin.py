"""MMIN as a method: its stages, its loss by hand, the scenarios that are drawn, and decoupling of its cases."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from anysubset.batches import Batch, Observed
from anysubset.errors import InputError
from anysubset.methods.creation import create_method
from anysubset.methods.method import Step
from anysubset.methods.mmin import MMIN
from anysubset.methods.update import Mean, fill_gradients
from anysubset.scenarios import Scenario, all_scenarios, scenario_name
from anysubset.tasks.prediction import Prediction, Stream

NAMES = ("audio", "text", "vision")
TEACHER, STUDENT = Step(stage="teacher"), Step(stage="student", seed=3)
PRESENCE: list[Scenario] = [NAMES, ("text",), ("audio", "vision"), NAMES]
WIDTH = 4


def task_of(kind: str = "vector", modalities: tuple[str, ...] = NAMES) -> Prediction:
    return Prediction(modalities, dict.fromkeys(modalities, Stream(kind, 3)))


def make(seed: int = 0, kind: str = "vector", **options: object) -> MMIN:
    torch.manual_seed(seed)
    return MMIN(task_of(kind), width=WIDTH, **options).double()  # type: ignore[arg-type]


def batch_of(presence: list[Scenario], kind: str = "vector") -> Batch:
    generator = torch.Generator().manual_seed(1)
    shape = (3,) if kind == "vector" else (6, 3)
    inputs = {}
    for name in NAMES:
        values = torch.randn(len(presence), *shape, generator=generator, dtype=torch.float64)
        having = torch.tensor([index for index, scenario in enumerate(presence) if name in scenario])
        if len(having):
            inputs[name] = Observed(values[having], having)
    target = torch.linspace(-2, 2, len(presence), dtype=torch.float64)
    return Batch(inputs, target, tuple(map(str, range(len(presence)))))


def reached_by(method: MMIN) -> set[str]:
    """Names of the submodules of the method that have a gradient."""
    names = [name for name, parameter in method.named_parameters() if parameter.grad is not None]
    return {".".join(name.split(".")[: 1 if name.startswith("teacher") else 2]) for name in names}


# ----------------------------------------------------------------------------------------------------- stages


def test_the_teacher_comes_first_and_cannot_predict_yet():
    teacher, student = MMIN.stages
    assert (teacher.name, teacher.scored) == ("teacher", False)
    assert (student.name, student.scored) == ("student", True)
    assert teacher.share + student.share == 1


def test_the_teacher_learns_from_complete_samples_only():
    method = make()
    assert method.objectives(TEACHER)["teacher"].needs == NAMES
    gradients = fill_gradients(method, Mean(method), [batch_of(PRESENCE)], TEACHER)
    assert gradients is not None
    assert gradients.totals == {"teacher": 2}
    assert reached_by(method) == {"teacher"}
    assert fill_gradients(method, Mean(method), [batch_of([("text",), ("audio", "vision")])], TEACHER) is None


def test_the_student_starts_from_the_encoders_of_the_teacher_which_is_frozen():
    method = make()
    method.enter("teacher")
    assert all(parameter.requires_grad for parameter in method.parameters())
    method.enter("student")
    for one, two in zip(method.teacher.encoders.parameters(), method.network.encoders.parameters(), strict=True):
        assert torch.equal(one, two)
        assert one is not two
    assert not any(parameter.requires_grad for parameter in method.teacher.parameters())
    fill_gradients(method, Mean(method), [batch_of(PRESENCE)], STUDENT)
    assert reached_by(method) == {"network.encoders", "network.forth", "network.back", "network.head"}


def test_features_of_the_teacher_are_computed_without_dropout():
    method = make().train()
    batch = batch_of(PRESENCE)
    one, two = (method.teacher_features(batch)[0] for _ in range(2))
    assert torch.equal(one, two)
    assert method.network.training


# ------------------------------------------------------------------------------------------------- objectives


def test_the_loss_by_hand(monkeypatch: pytest.MonkeyPatch):
    # I3: .5 + 4 x .25 + 2 x .1 = 1.7, both with scenarios by sample and as the loss of a case.
    method = make()
    objectives = method.objectives(STUDENT)
    values = {"task": 0.5, "imagine": 0.25, "cycle": 0.1}
    assert sum(objectives[name].weight * value for name, value in values.items()) == pytest.approx(1.7)
    assert [name for name, objective in objectives.items() if objective.case] == ["task"]
    monkeypatch.setattr(method, "terms", lambda *arguments: {name: torch.tensor(v) for name, v in values.items()})
    step = Step(stage="student", cases=(("text",), NAMES))
    losses = method.losses(batch_of(PRESENCE), step)
    assert {name: loss.item() for name, loss in losses.items()} == pytest.approx(
        {"text": 1.7, scenario_name(NAMES): 1.7}
    )


def test_the_terms_are_the_task_loss_the_imagination_loss_and_the_cycle_loss():
    method, batch = make().eval(), batch_of([NAMES, NAMES])
    shown: list[Scenario] = [("text",), ("audio", "text")]
    features = method.network.features(batch.inputs)
    output = method.network.output_by_sample(features, shown)
    terms = method.terms(output, batch.target, shown, *method.teacher_features(batch))
    assert_close(terms["task"], (output.output[:, 0] - batch.target).abs().mean())
    # Audio and vision of the first sample are hidden, and vision of the second; the divisor stays 3 x 4 per sample.
    squares = 0.0
    for index, name in ((0, "audio"), (0, "vision"), (1, "vision")):
        target = method.teacher.encode(name, batch.inputs[name].values[index : index + 1])[0]
        slot = NAMES.index(name) * WIDTH
        squares += (output.imagined[index, slot : slot + WIDTH] - target).square().sum().item()
    assert terms["imagine"].item() == pytest.approx(squares / (2 * 3 * WIDTH))
    returned = method.network.returned(output.imagined)
    assert_close(terms["cycle"], (returned - output.features).square().mean())


def test_the_cycle_loss_sends_no_gradient_to_its_target():
    method, batch = make().eval(), batch_of([NAMES])
    output = method.network.output_by_sample(method.network.features(batch.inputs), [NAMES])
    fixed = output._replace(imagined=output.imagined.detach())
    method.terms(fixed, batch.target, [NAMES], *method.teacher_features(batch))["cycle"].backward()
    assert reached_by(method) == {"network.back"}


def test_a_missing_modality_has_no_imagination_target():
    method = make()
    batch = batch_of(PRESENCE)
    features, measured = method.teacher_features(batch)
    assert measured.tolist() == [[name in scenario for name in NAMES] for scenario in PRESENCE]
    assert not features[~measured].any()
    text = batch.inputs["text"]
    assert_close(features[text.indices, 1], method.teacher.encode("text", text.values).detach())


def test_the_published_target_of_present_modalities_is_the_teachers_features_of_zeros():
    batch = batch_of([NAMES])
    values = {}
    for target in ("absent", "all"):
        method = make(target=target).eval()
        output = method.network.output_by_sample(method.network.features(batch.inputs), [NAMES])
        terms = method.terms(output, batch.target, [NAMES], *method.teacher_features(batch))
        values[target] = terms["imagine"].item()
    zeros = [method.teacher.encode(name, torch.zeros(1, 3, dtype=torch.float64)) for name in NAMES]
    assert values["absent"] == 0
    assert values["all"] == pytest.approx((output.imagined - torch.cat(zeros, dim=1)).square().mean().item())


# --------------------------------------------------------------------------------------------- what is shown


@pytest.mark.parametrize(("patterns", "number"), [("all", 7), ("incomplete", 6)])
def test_every_scenario_is_drawn_equally_often(patterns: str, number: int):
    method = make(patterns=patterns)
    generator = torch.Generator().manual_seed(0)
    drawn = [method.drawn(NAMES, generator) for _ in range(1400)]
    counts = [drawn.count(scenario) for scenario in all_scenarios(NAMES)]
    assert sum(count > 0 for count in counts) == number
    # Five standard deviations of a binomial count.
    assert all(abs(count - 1400 / number) < 5 * (1400 / number) ** 0.5 for count in counts if count)
    # A sample that lacks a modality is incomplete, so all of its modalities may be drawn.
    assert method.drawn(("text",), generator) == ("text",)


def test_the_scenario_of_a_sample_does_not_depend_on_the_micro_batch():
    method = make()
    assert method.drawn(NAMES, STUDENT.chance("7")) == method.drawn(NAMES, STUDENT.chance("7"))


# ------------------------------------------------------------------------------------------------- prediction


def test_the_prediction_state_holds_neither_the_teacher_nor_the_cascade_of_the_cycle_loss():
    method = make()
    state = method.prediction_state()
    assert {name.split(".")[0] for name in state} == {"network"}
    assert {name.split(".")[1] for name in state} == {"encoders", "forth", "head"}
    shared = make(share_cascade=True).prediction_state()
    assert {name.split(".")[1] for name in shared} == {"encoders", "forth", "head"}


@torch.no_grad()
def test_the_prediction_is_the_output_of_the_student():
    method, batch = make().eval(), batch_of(PRESENCE)
    output = method.network.output_by_sample(method.network.features(batch.inputs), PRESENCE)
    assert torch.equal(method.predict(batch.inputs), output.output)


# -------------------------------------------------------------------------------------------------- gradients


@pytest.mark.parametrize("kind", ["vector", "sequence"])
def test_decoupling_acts_on_cases_whose_losses_include_imagination_and_cycle(kind: str):
    torch.manual_seed(0)
    options = {"gradients": "gmd", "cases": "all", "width": WIDTH}
    method, update = create_method("mmin", task_of(kind), options, torch.Generator().manual_seed(0))
    method = method.double().eval()  # Dropout would draw twice.
    method.enter("student")
    batch = batch_of(PRESENCE, kind)
    step = Step(stage="student", cases=method.draw(torch.Generator()))
    gradients = fill_gradients(method, update, [batch], step)
    assert gradients is not None
    assert gradients.decoupling is not None
    coefficients = gradients.decoupling.coefficients
    assert list(coefficients) == [scenario_name(scenario) for scenario in all_scenarios(NAMES)]
    filled = {name: parameter.grad for name, parameter in method.named_parameters()}
    method.zero_grad()
    losses = method.losses(batch, step)
    (torch.stack([coefficients[name] * losses[name] for name in coefficients]).sum() / 7).backward()
    for name, parameter in method.named_parameters():
        if parameter.grad is None:
            assert filled[name] is None
        else:
            assert_close(filled[name], parameter.grad, rtol=0, atol=1e-10)


def test_with_scenarios_by_sample_decoupling_changes_nothing():
    # One case cannot conflict with itself.
    batch, gradients = batch_of(PRESENCE), []
    for rule in ("mean", "gmd"):
        torch.manual_seed(0)
        method, update = create_method("mmin", task_of(), {"gradients": rule, "width": WIDTH})
        method = method.double().eval()
        method.enter("student")
        fill_gradients(method, update, [batch], STUDENT)
        gradients.append([p.grad for p in method.parameters() if p.grad is not None])
    assert len(gradients[0]) == len(gradients[1]) > 0
    for one, two in zip(*gradients, strict=True):
        assert_close(one, two, rtol=0, atol=1e-12)


# ---------------------------------------------------------------------------------------------------- options


@pytest.mark.parametrize(
    "options", [{"imagine": 0.0}, {"cycle": 0.0}, {"target": "all"}, {"share_cascade": True}], ids=str
)
def test_an_option_changes_the_gradient(options: dict[str, object]):
    def gradient(**chosen: object) -> Tensor:
        method = make(**chosen).eval()
        method.enter("student")
        fill_gradients(method, Mean(method), [batch_of(PRESENCE)], STUDENT)
        return torch.cat([p.grad.flatten() for p in method.network.forth.parameters() if p.grad is not None])

    plain = gradient()
    assert torch.equal(plain, gradient())
    assert (gradient(**options) - plain).abs().max() > 1e-9


def test_the_version_follows_the_data_unless_the_option_is_set():
    assert make().network.encoders.version == "utterance"
    assert make(kind="sequence").network.encoders.version == "sequence"
    assert make(kind="sequence", version="utterance").network.encoders.version == "utterance"


@pytest.mark.parametrize(
    ("build", "line"),
    [
        (lambda: make(patterns="some"), "Unknown method.patterns 'some'"),
        (lambda: make(version="frames"), "Unknown method.version 'frames'"),
        (lambda: make(target="present"), "Unknown method.target 'present'"),
        (lambda: make(imagine=-1.0), "weights of 0 or more, not -1.0 and 2.0"),
        (lambda: make(patterns="incomplete", cases="full"), "drawn by sample, not for method.cases full"),
        (lambda: MMIN(task_of(modalities=("text",))), "so it needs two or more; these data have one"),
        (
            lambda: MMIN(task_of("image")),
            "MMIN with encoders of version 'sequence' is for sequences; 'audio' is of kind image.",
        ),
        (lambda: make(version="sequence"), "'audio' is of kind vector; set method.version to utterance"),
    ],
)
def test_wrong_input_is_refused(build: Callable[[], MMIN], line: str):
    with pytest.raises(InputError, match=line):
        build()
