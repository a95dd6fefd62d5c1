"""Methods on networks of Dynamic Sharing with `context: conversation`: trained on whole groups as they predict them."""

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from anysubset.batches import Batch, Observed
from anysubset.methods.cases import CaseMethod
from anysubset.methods.creation import create_method
from anysubset.methods.ensemble import Ensemble
from anysubset.methods.method import Method, Step
from anysubset.methods.update import fill_gradients
from anysubset.scenarios import Scenario, all_scenarios, scenario_name
from anysubset.tasks.prediction import Prediction, Stream
from anysubset.testing.toys import part

NAMES = ("text", "audio")
TASK = Prediction(NAMES, {"text": Stream("vector", 3), "audio": Stream("vector", 2)})
PRESENCE: list[Scenario] = [NAMES, ("text",), ("audio",), NAMES, NAMES]
BATCH = Batch(
    {
        "text": Observed(torch.linspace(-1, 2, 12).reshape(4, 3).sin().double(), torch.tensor([0, 1, 3, 4])),
        "audio": Observed(torch.linspace(2, 0, 8).reshape(4, 2).cos().double(), torch.tensor([0, 2, 3, 4])),
    },
    torch.linspace(-1, 1, 5, dtype=torch.float64),
    ("s0", "s1", "s2", "s3", "s4"),
    ("a", "a", "a", "b", "b"),
)
CONVERSATIONS = {"a": [0, 1, 2], "b": [3, 4]}


def make(name: str, **options: Any) -> tuple[Method, Any]:
    torch.manual_seed(0)
    own = {"score": "laplace"} if name == "ogm_ge" else {}
    shared = {"preset": "utterance", "context": "conversation", "width": 8, "layers": 1, "dropout": 0.0}
    method, update = create_method(name, TASK, {**own, **shared, **options})
    return method.double().eval(), update


def outputs_by_conversation(method: Method, batch: Batch) -> Tensor:
    return torch.cat([method.predict(part(batch, rows).inputs) for rows in CONVERSATIONS.values()])


@pytest.mark.parametrize("name", ["gmd", "sharing", "dropout", "full", "ogm_ge", "ensemble"])
def test_the_unit_of_the_method_follows_the_context(name: str):
    method, _ = make(name)
    assert method.unit == "group"
    assert method.without_groups == "leave out method.context"
    assert make(name, context="sample")[0].unit == "sample"


@pytest.mark.parametrize("name", ["sharing", "ogm_ge"])
def test_a_batch_of_conversations_is_trained_as_they_are_predicted_one_by_one(name: str):
    method, _ = make(name)
    assert isinstance(method, CaseMethod)
    losses = method.losses(BATCH, Step(cases=tuple(all_scenarios(NAMES))))
    for case in all_scenarios(NAMES):
        rows = [row for row, own in enumerate(PRESENCE) if set(case) <= set(own)]
        inputs = {name: BATCH.inputs[name] for name in case}
        errors = []
        for members in CONVERSATIONS.values():
            own = part(Batch(inputs, BATCH.target, BATCH.ids, BATCH.groups), members)
            features = method.network.features(own.inputs)
            output, indices = method.network.output_of_case(features, case)
            errors += (output[:, 0] - own.target[indices]).abs().tolist()
        assert len(errors) == len(rows)
        assert losses[scenario_name(case)].item() == pytest.approx(sum(errors) / len(errors), abs=1e-12)


def test_the_experts_of_an_ensemble_get_conversations():
    method, _ = make("ensemble")
    assert isinstance(method, Ensemble)
    losses = method.losses(BATCH, Step())
    for name in NAMES:
        errors = []
        for members in CONVERSATIONS.values():
            own = part(BATCH, members)
            observed = own.inputs[name]
            prediction = method.predict({name: Observed(observed.values, torch.arange(len(observed.indices)))})
            errors += (prediction[:, 0] - own.target[observed.indices]).abs().tolist()
        assert losses[name].item() == pytest.approx(sum(errors) / len(errors), abs=1e-12)


@pytest.mark.parametrize("option", ["batched", "recompute"])
def test_encoders_over_conversations_can_be_batched_and_recomputed(option: str):
    gradients = []
    for options in ({}, {option: True}):
        method, update = make("gmd", **options)
        fill_gradients(method, update, [BATCH], Step(cases=tuple(all_scenarios(NAMES))))
        gradients.append([parameter.grad for parameter in method.parameters()])
    assert_close(gradients[0], gradients[1], rtol=1e-9, atol=1e-12)


def test_another_utterance_of_the_conversation_changes_a_prediction():
    for context, changes in (("conversation", True), ("sample", False)):
        method, _ = make("sharing", context=context)
        alone = outputs_by_conversation(method, BATCH)
        text = BATCH.inputs["text"]
        values = text.values.clone()
        values[-1] += 1
        other = Batch({**BATCH.inputs, "text": Observed(values, text.indices)}, BATCH.target, BATCH.ids, BATCH.groups)
        differences = (outputs_by_conversation(method, other) - alone).abs().flatten() > 1e-9
        # By hand: the last sample is of conversation b, the samples 3 and 4.
        assert differences.tolist() == [False, False, False, changes, True]


def test_an_unknown_context_is_refused(fault):
    assert fault(make, "sharing", context="video") == (
        "Unknown method.context 'video'. Choose from: sample, conversation."
    )
    assert fault(make, "sharing", context="conversation", width=6).startswith("method.width must be even, at least 4")
