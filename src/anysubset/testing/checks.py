"""Checks of a method in one process, each on one toy task."""

import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from anysubset.batches import Observed, keep
from anysubset.errors import InputError
from anysubset.methods.creation import create, options_of
from anysubset.methods.update import UPDATES
from anysubset.scenarios import scenario_name
from anysubset.system import tensor_file
from anysubset.testing.subject import Subject, gradients_of, identical, take_steps, train_steps
from anysubset.testing.toys import COMPLETE, MODALITIES, SCENARIOS, part

STEPS = 24  # Enough for every case to be drawn.


@torch.no_grad()
def check_predictions(subject: Subject) -> None:
    """Every scenario is predicted; all scenarios together give what each gives alone."""
    method, _ = subject.create()
    method.eval()
    batch = subject.toy.batch(COMPLETE[:2])
    together = list(method.predict_scenarios(batch.inputs, SCENARIOS))
    assert [scenario for scenario, _ in together] == SCENARIOS, "predict_scenarios changes the order of the scenarios."
    for scenario, prediction in together:
        assert prediction.isfinite().all(), f"The prediction from {scenario_name(scenario)} is not finite."
        alone = method.predict(keep(batch.inputs, scenario))
        assert torch.allclose(prediction, alone, rtol=1e-6, atol=1e-8), (
            f"The prediction from {scenario_name(scenario)} among all scenarios differs from predict()."
        )
    reversed_inputs = dict(reversed(batch.inputs.items()))
    assert torch.equal(method.predict(reversed_inputs), method.predict(batch.inputs)), "The order of the keys matters."


@torch.no_grad()
def check_samples_are_independent(subject: Subject) -> None:
    """A sample is predicted as if it were alone, whatever the others of its batch have."""
    if subject.row.method.unit == "group":
        return  # The samples of a group are predicted from each other.
    method, _ = subject.create()
    method.eval()
    batch = subject.toy.batch(subject.toy.incomplete)
    together = method.predict(batch.inputs)
    for index, scenario in enumerate(subject.toy.incomplete):
        alone = {}
        for modality in scenario:
            observed = batch.inputs[modality]
            position = observed.indices.tolist().index(index)
            valid = None if observed.valid is None else observed.valid[position : position + 1]
            alone[modality] = Observed(observed.values[position : position + 1], torch.tensor([0]), valid)
        prediction = method.predict(alone)
        assert torch.allclose(together[index : index + 1], prediction, rtol=1e-6, atol=1e-8), (
            f"A sample with {scenario_name(scenario)} is predicted otherwise in a batch than alone."
        )


def check_refusals(subject: Subject) -> None:
    """No modality, an unknown modality and an unknown option are refused with InputError."""
    method, _ = subject.create()
    observed = subject.toy.batch(subject.toy.complete).inputs["text"]
    calls: dict[str, Callable[[], object]] = {
        "no modality": lambda: method.predict({}),
        "an unknown modality": lambda: method.predict({"smell": observed}),
        "an unknown option": lambda: subject.create(bogus=1),
    }
    for name, call in calls.items():
        message = refusal(call)
        assert message is not None, f"There is no InputError for {name}."
        assert "\n" not in message, f"The message about {name} has several lines."
    for option, default in options_of(subject.row, subject.row.gradients).items():
        if default is not None:
            assert isinstance(default, str | int | float | bool), f"The default of option {option} is not plain."


def refusal(call: Callable[[], object]) -> str | None:
    """The message of the InputError that a call raises; None if it raises none."""
    try:
        call()
    except InputError as error:
        return str(error)
    return None


def check_missing_is_absent(subject: Subject) -> None:
    """Whatever stands in missing slots and padded steps changes no bit of predictions and gradients."""
    subject = subject.in_float32()
    for presence, value in ((subject.toy.incomplete, 1e30), ((("text",), ("text", "audio")), 0.0)):
        states = []
        for filler in (torch.nan, value):
            method, update = subject.create()
            batch = subject.toy.batch(presence, filler)
            take_steps(method, update, [batch], 2)
            gradients = gradients_of(method)
            with torch.no_grad():
                states.append((gradients, method.eval().predict(batch.inputs)))
        (gradients, prediction), (other_gradients, other_prediction) = states
        assert prediction.isfinite().all(), "A missing modality makes a prediction NaN."
        assert torch.equal(prediction, other_prediction), "The value of a missing slot changes a prediction."
        assert identical(gradients, other_gradients), "The value of a missing slot changes a gradient."


@torch.no_grad()
def check_scenarios_without_a_modality(subject: Subject) -> None:
    """NaN in one modality reaches no scenario without it."""
    method, _ = subject.create()
    method.eval()
    inputs = dict(subject.toy.batch(COMPLETE[:1]).inputs)
    for modality in MODALITIES:
        without = [scenario for scenario in SCENARIOS if modality not in scenario]
        observed = inputs[modality]
        poisoned = {**inputs, modality: replace(observed, values=torch.full_like(observed.values, torch.nan))}
        clean = dict(method.predict_scenarios(inputs, without))
        for scenario, prediction in method.predict_scenarios(poisoned, without):
            assert torch.equal(prediction, clean[scenario]), (
                f"{modality} reaches the prediction from {scenario_name(scenario)}."
            )


def check_learning(subject: Subject) -> None:
    """Every parameter receives a finite gradient in some stage, unless it is frozen in all of them.

    Incomplete batches can be trained on.
    """
    subject = subject.in_float32()
    method, update = subject.create()
    reached, trainable = set(), set()
    for step, gradients in train_steps(method, update, [subject.toy.batch(subject.toy.complete)], STEPS):
        assert gradients is not None, "A complete batch has no objective."
        trainable |= {name for name, parameter in method.named_parameters() if parameter.requires_grad}
        for name, gradient in gradients_of(method).items():
            if gradient is not None:
                assert gradient.isfinite().all(), f"The gradient of {name} is not finite."
                reached.add(name)
        if step.stage == method.stages[-1].name and reached >= trainable:
            break
    missed = trainable - reached
    assert not missed, f"No stage trains {', '.join(sorted(missed)[:3])}."
    method, update = subject.create()
    before = {name: value.clone() for name, value in method.state_dict().items()}
    take_steps(method, update, [subject.toy.batch(subject.toy.incomplete)], 2, optimize=True)
    after = method.state_dict()
    assert all(value.isfinite().all() for value in after.values()), "Incomplete samples give NaN parameters."
    assert not identical(before, after), "Incomplete samples train nothing."


def check_no_eligible_sample(subject: Subject) -> None:
    """An objective without samples gives no loss, and a batch without any objective no step."""
    method, update = subject.create()
    batch = subject.toy.batch([("text",)])
    for step, gradients in train_steps(method, update, [batch], 3):
        if gradients is not None:
            objectives = method.objectives(step)
            for name in gradients.totals:
                assert set(objectives[name].needs) <= {"text"}, f"Objective {name} is trained without its modalities."


def check_reproducible(subject: Subject) -> None:
    """The same seed gives the same bits, another seed others."""
    subject = subject.in_float32()

    def trained(seed: int) -> dict[str, Tensor]:
        method, update = subject.create(seed)
        take_steps(method, update, [subject.toy.batch(subject.toy.incomplete)], 2, optimize=True)
        return method.state_dict()

    first = trained(0)
    assert identical(first, trained(0)), "The same seed gives other parameters."
    if all(stage.fit_steps for stage in subject.create()[0].stages):
        return  # A fit need not draw random numbers.
    assert not identical(first, trained(1)), "Another seed gives the same parameters."


def check_micro_batches(subject: Subject) -> None:
    """The gradient of a batch is the same whole and in two micro-batches, unless an objective is pooled."""
    method, update = subject.create()
    if method.pools_batch():
        return
    batch = subject.toy.batch(subject.toy.incomplete)
    gradients = []
    first = 1
    if subject.row.method.unit == "group":
        assert batch.groups is not None
        first = batch.groups.count(batch.groups[0])
    for parts in ([batch], [part(batch, range(first)), part(batch, range(first, len(batch.ids)))]):
        method, update = subject.create()
        method.eval()  # Dropout draws other values for other parts.
        take_steps(method, update, parts, 1)
        gradients.append(gradients_of(method))
    whole, parted = gradients
    for name, gradient in whole.items():
        other = parted[name]
        assert (gradient is None) == (other is None), f"{name} has a gradient in one batch, or in two, alone."
        if gradient is not None and other is not None:
            assert torch.allclose(gradient, other, rtol=1e-5, atol=1e-9), (
                f"The gradient of {name} changes if a batch comes in two parts."
            )


@torch.no_grad()
def check_saving(subject: Subject) -> None:
    """What `prediction_state` keeps is enough to predict the same to the bit, without the training samples."""
    subject = subject.in_float32()
    batch = subject.toy.batch(subject.toy.complete)
    method, update = subject.create()
    with torch.enable_grad():
        take_steps(method, update, [batch], 2, optimize=True)
    method.eval()
    torch.manual_seed(9)
    other, _ = create(subject.row, subject.row.method.__name__, subject.toy.task, subject.options)
    other.to(subject.toy.dtype).eval()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "best.safetensors"
        tensor_file.save(path, method.prediction_state(), {})
        tensors, _ = tensor_file.load(path)
        tensor_file.load_module(tensors, other, path, other.prediction_state())
    for scenario in SCENARIOS:
        inputs = keep(batch.inputs, scenario)
        assert torch.equal(other.predict(inputs), method.predict(inputs)), "Saving and loading changes a prediction."


def check_updates(subject: Subject) -> None:
    """A method with cases and shared parameters can be trained with every update; others refuse it in one line."""
    subject = subject.in_float32()
    shares = bool(subject.create()[0].shared_parameters())
    for gradients in UPDATES:
        try:
            method, update = subject.create(gradients=gradients)
        except InputError as error:
            if shares:
                raise AssertionError(f"gradients={gradients} is refused: {error}") from error
            continue
        take_steps(method, update, [subject.toy.batch(subject.toy.incomplete)], 2, optimize=True)
        assert all(value.isfinite().all() for value in method.state_dict().values()), f"{gradients} gives NaN."
