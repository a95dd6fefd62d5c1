"""GCNet as a method: its losses by hand, cases, decoupling, and data without conversations."""

from typing import Any

import pytest
import torch
from torch.testing import assert_close

from anysubset.batches import Batch, Observed, keep, renumbered
from anysubset.evaluation.groups import predict_group
from anysubset.methods.cases import DRAWN
from anysubset.methods.creation import create_method
from anysubset.methods.gcnet import RECONSTRUCTION, GCNet
from anysubset.methods.method import Step
from anysubset.methods.update import Mean, fill_gradients
from anysubset.scenarios import Scenario, all_scenarios, scenario_name
from anysubset.tasks.prediction import Prediction, Stream
from anysubset.tasks.task import at_once
from anysubset.training.diagnose import diagnose

NAMES = ("audio", "text", "vision")
SIZES = {"audio": 2, "text": 3, "vision": 1}
PRESENCE: list[Scenario] = [NAMES, ("text",), ("audio", "vision"), NAMES, NAMES]
GROUPS = ("a", "a", "a", "b", "b")
STEP = Step(seed=3)


def task_of(error: str = "l1") -> Prediction:
    return Prediction(NAMES, {name: Stream("vector", size) for name, size in SIZES.items()}, error=error)


def make(**options: Any) -> GCNet:
    torch.manual_seed(0)
    return GCNet(task_of(), **{"width": 4, **options}).double().eval()


def batch_of(presence: list[Scenario] = PRESENCE, groups: tuple[str, ...] = GROUPS) -> Batch:
    generator = torch.Generator().manual_seed(1)
    inputs = {}
    for name, size in SIZES.items():
        values = torch.randn(len(presence), size, generator=generator, dtype=torch.float64)
        indices = torch.tensor([index for index, own in enumerate(presence) if name in own])
        inputs[name] = Observed(values[indices], indices)
    target = torch.linspace(-2, 2, len(presence), dtype=torch.float64)
    return Batch(inputs, target, tuple(map(str, range(len(presence)))), groups)


def test_the_terms_are_the_loss_of_the_task_and_the_reconstruction_of_hidden_modalities():
    method, batch = make(), batch_of()
    features = method.features(batch, STEP, whole=True)
    shown: list[Scenario] = [("text",), ("text",), ("audio",), NAMES, ("audio", "text")]
    output = method.network.output_by_sample(features, shown)
    loss, reconstruction = method.terms(output, torch.arange(5), features, batch)
    assert_close(loss, (output.output[:, 0] - batch.target).abs().mean())
    # Hidden are audio and vision of the first utterance, and vision of the third and of the last. The second has text
    # alone, so its audio and vision are missing in the data and have no target.
    audio, _, vision = output.vectors.split((2, 3, 1), dim=1)
    by_hand = (
        (audio[0] - batch.inputs["audio"].values[0]).square().mean()
        + (vision[0] - batch.inputs["vision"].values[0]).square().mean()
        + (vision[2] - batch.inputs["vision"].values[1]).square().mean()
        + (vision[4] - batch.inputs["vision"].values[3]).square().mean()
    ) / 5
    assert_close(reconstruction, by_hand)


def test_the_loss_of_a_case_holds_its_reconstruction():
    method, batch = make(reconstruction=0.5), batch_of()
    losses = method.losses(batch, Step(cases=tuple(all_scenarios(NAMES))))
    assert set(losses) == {scenario_name(case) for case in all_scenarios(NAMES)}
    features = method.features(batch, STEP, whole=True)
    output, indices = method.network.output_of_case(features, ("text",))
    assert indices.tolist() == [0, 1, 3, 4]
    loss, reconstruction = method.terms(output, indices, features, batch)
    assert reconstruction > 0
    assert_close(losses["text"], loss + 0.5 * reconstruction)
    # With everything shown there is nothing to reconstruct.
    output, indices = method.network.output_of_case(features, NAMES)
    assert method.terms(output, indices, features, batch)[1] == 0


def test_the_published_loss_is_the_squared_error():
    torch.manual_seed(0)
    method = GCNet(task_of("mse"), width=4).double().eval()
    batch = batch_of()
    features = method.features(batch, STEP, whole=True)
    output = method.network.output_by_sample(features, [("text",), ("text",), ("audio",), NAMES, NAMES])
    loss, _ = method.terms(output, torch.arange(5), features, batch)
    assert_close(loss, (output.output[:, 0] - batch.target).square().sum() / 5)


def test_objectives_by_utterance_are_weighted_and_logged_apart():
    method = make(reconstruction=0.25)
    gradients = fill_gradients(method, Mean(method), [batch_of()], STEP)
    assert gradients is not None
    assert gradients.totals == {DRAWN: 5, RECONSTRUCTION: 5}
    assert {name: objective.weight for name, objective in gradients.objectives.items()} == {
        DRAWN: 1.0,
        RECONSTRUCTION: 0.25,
    }


def test_cases_are_trained_as_they_are_predicted():
    method, batch = make(), batch_of()
    features = method.features(batch, STEP, whole=True)
    rows = {"a": (0, 3), "b": (3, 5)}
    for case in all_scenarios(NAMES):
        trained, indices = method.network.output_of_case(features, case)
        predicted = []
        for start, stop in rows.values():
            own = {
                name: Observed(observed.values[inside], observed.indices[inside] - start)
                for name, observed in batch.inputs.items()
                for inside in [(observed.indices >= start) & (observed.indices < stop)]
            }
            ((_, outputs),) = predict_group(method, own, [case], at_once)
            predicted.append(outputs)
        assert len(indices)
        assert_close(trained.output, torch.cat(predicted), rtol=0, atol=1e-12)


def test_utterances_have_neighbours_in_their_conversation_alone():
    method, batch = make(), batch_of()
    changed = dict(batch.inputs)
    text = batch.inputs["text"]
    values = text.values.clone()
    values[0] += 1  # Of the first utterance of conversation a.
    changed["text"] = Observed(values, text.indices)
    outputs = [
        method.network.output_by_sample(method.network.features(inputs, groups=GROUPS), PRESENCE).output
        for inputs in (batch.inputs, changed)
    ]
    difference = (outputs[0] - outputs[1]).abs().flatten()
    assert (difference[:3] > 1e-9).all()
    assert (difference[3:] == 0).all()


def test_predictions_follow_the_order_of_the_conversation():
    method = make()
    inputs = batch_of([NAMES] * 3, ("a",) * 3).inputs
    backwards = {name: Observed(observed.values.flip(0), observed.indices) for name, observed in inputs.items()}
    assert not torch.allclose(method.predict(inputs), method.predict(backwards).flip(0), atol=1e-6)


def test_decoupling_of_all_cases_changes_all_parameters():
    torch.manual_seed(0)
    options = {"width": 4, "gradients": "gmd", "cases": "all", "dropout": 0.0}
    method, update = create_method("gcnet", task_of(), options)
    method.double()
    step = Step(cases=method.draw(torch.Generator()))
    gradients = fill_gradients(method, update, [batch_of()], step)
    assert gradients is not None
    assert gradients.decoupling is not None
    assert len(gradients.decoupling.coefficients) == 7
    assert all(parameter.grad is not None for parameter in method.parameters())


def test_conflict_between_cases_can_be_measured():
    measured = diagnose(make(), [[batch_of()]], all_scenarios(NAMES))
    assert len(measured.entries) == 1


def test_without_conversations_the_unit_is_a_sample():
    assert (GCNet.unit, make().unit, make(conversation=False).unit) == ("group", "group", "sample")
    method, batch = make(conversation=False), batch_of()
    together = method.predict(batch.inputs)
    last = {name: Observed(observed.values[-1:], observed.indices[-1:]) for name, observed in batch.inputs.items()}
    assert_close(method.predict(renumbered(last)), together[-1:], rtol=0, atol=1e-12)


def test_images_are_refused_with_what_to_do(fault):
    streams = {"audio": Stream("image", 1), "text": Stream("vector", 3)}
    assert fault(GCNet, Prediction(("audio", "text"), streams)) == (
        "GCNet takes vectors, and sequences, which it averages over time; 'audio' is of kind image: give vectors, "
        "computed by a pretrained network, or leave it out of data.modalities."
    )


def test_a_weight_below_zero_is_refused(fault):
    assert fault(make, reconstruction=-1.0) == "method.reconstruction is a weight of 0 or more, not -1.0."


@pytest.mark.parametrize("names", [("one",), ("a", "b", "c", "d")])
def test_any_number_of_modalities_is_taken(names: tuple[str, ...]):
    method = GCNet(Prediction(names, {name: Stream("vector", 2) for name in names}), width=2).eval()
    inputs = keep({name: torch.randn(3, 2) for name in names}, names)
    assert method.predict(inputs).shape == (3, 1)
