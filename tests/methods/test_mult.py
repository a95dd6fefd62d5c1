"""MulT as a method: training, zeros in place of a missing modality, options of the published program, decoupling."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch.testing import assert_close

from anysubset.batches import Batch, Observed, keep
from anysubset.errors import InputError
from anysubset.methods.creation import create_method
from anysubset.methods.method import Step
from anysubset.methods.mult import MulT
from anysubset.methods.update import Mean, fill_gradients
from anysubset.scenarios import Scenario, all_scenarios, scenario_name
from anysubset.tasks.prediction import Prediction, Stream

NAMES = ("text", "audio", "vision")
FULL = Step(cases=(NAMES,))
PRESENCE: list[Scenario] = [NAMES, NAMES, ("text",), ("audio", "vision"), NAMES]
SIZE, TIME = 3, 4


def task_of(*kinds: str, modalities: tuple[str, ...] = NAMES) -> Prediction:
    """A regression on modalities of these kinds; of one kind if only one is given."""
    kinds = kinds if len(kinds) > 1 else kinds * len(modalities)
    return Prediction(modalities, {name: Stream(kind, SIZE) for name, kind in zip(modalities, kinds, strict=True)})


def make(*kinds: str, **options: Any) -> MulT:
    torch.manual_seed(0)
    return MulT(task_of(*kinds or ("sequence",)), **{"layers": 1, **options}).double().eval()


def batch_of(presence: list[Scenario], vectors: Scenario = ()) -> Batch:
    """Sequences of 1 to 4 valid steps; sample i has 1 + i % 4 of them."""
    generator = torch.Generator().manual_seed(1)
    inputs = {}
    for name in NAMES:
        values = torch.randn(len(presence), TIME, SIZE, generator=generator, dtype=torch.float64)
        having = torch.tensor([index for index, scenario in enumerate(presence) if name in scenario])
        if name in vectors and len(having):
            inputs[name] = Observed(values[having, 0], having)
        elif len(having):
            inputs[name] = Observed(values[having], having, torch.arange(TIME) < 1 + having[:, None] % TIME)
    target = torch.linspace(-2, 2, len(presence), dtype=torch.float64)
    return Batch(inputs, target, tuple(map(str, range(len(presence)))))


# --------------------------------------------------------------------------------------------------- training


def test_mult_is_trained_on_complete_samples_only():
    method, batch = make(), batch_of(PRESENCE)
    assert method.draw(torch.Generator()) == (NAMES,)
    losses = method.losses(batch, FULL)
    # Samples 0, 1 and 4 are complete.
    errors = (method.predict(batch.inputs)[:, 0] - batch.target).abs()
    assert list(losses) == [scenario_name(NAMES)]
    assert losses[scenario_name(NAMES)].item() == pytest.approx(errors[[0, 1, 4]].mean().item())
    incomplete = batch_of([("text", "audio"), ("vision",)])
    assert fill_gradients(method, Mean(method), [incomplete], FULL) is None


def test_with_scenarios_by_sample_every_sample_is_trained_on():
    method, batch = make(cases="sample"), batch_of(PRESENCE)
    step = Step(cases=method.draw(torch.Generator()), seed=3)
    drawn = method.drawn_scenarios(batch, step)
    assert all(set(scenario) <= set(own) for scenario, own in zip(drawn, PRESENCE, strict=True))
    assert len(set(drawn)) > 1
    features = method.network.features(batch.inputs)
    output = method.network.output_by_sample(features, drawn)
    assert list(method.losses(batch, step).values()) == [(output[:, 0] - batch.target).abs().mean()]


def test_a_case_sends_no_gradient_to_the_projection_of_a_missing_modality():
    method = make(cases="all")
    method.losses(batch_of(PRESENCE), Step(cases=(("text",),)))["text"].backward()
    gradients = {name: layer.weight.grad for name, layer in method.network.transformer.projections.items()}
    assert {name for name, gradient in gradients.items() if gradient is not None and gradient.any()} == {"text"}


@pytest.mark.parametrize("kinds", [("sequence",), ("vector", "sequence", "vector")])
def test_decoupling_acts_on_everything_but_the_projections(kinds: tuple[str, ...]):
    torch.manual_seed(0)
    options = {"gradients": "gmd", "cases": "all", "layers": 1}
    task = task_of(*kinds)
    method, update = create_method("mult", task, options, torch.Generator().manual_seed(0))
    method = method.double().eval()  # Dropout would draw twice.
    batch = batch_of(PRESENCE, tuple(name for name in NAMES if task.streams[name].kind == "vector"))
    step = Step(cases=method.draw(torch.Generator()))
    gradients = fill_gradients(method, update, [batch], step)
    assert gradients is not None
    assert gradients.decoupling is not None
    coefficients = gradients.decoupling.coefficients
    assert list(coefficients) == [scenario_name(scenario) for scenario in all_scenarios(NAMES)]
    # The Gramian is that of the gradients over all parameters except the projections.
    shared = [p for name, p in method.named_parameters() if not name.startswith("network.transformer.projections.")]
    losses = method.losses(batch, step)
    rows = torch.stack(
        [
            torch.cat([part.flatten() for part in torch.autograd.grad(losses[name], shared, retain_graph=True)])
            for name in coefficients
        ]
    )
    assert_close(gradients.decoupling.gramian, rows @ rows.T, rtol=1e-9, atol=1e-12)
    filled = {name: parameter.grad for name, parameter in method.named_parameters()}
    method.zero_grad()
    (torch.stack([coefficients[name] * losses[name] for name in coefficients]).sum() / 7).backward()
    for name, parameter in method.named_parameters():
        assert_close(filled[name], parameter.grad, rtol=0, atol=1e-12)


def test_encoders_can_be_batched_but_not_recomputed(fault):
    def gradient(**options: bool) -> torch.Tensor:
        torch.manual_seed(0)
        own = {"gradients": "gmd", "cases": "all", "layers": 1, **options}
        method, update = create_method("mult", task_of("sequence"), own, torch.Generator().manual_seed(0))
        method = method.double().eval()
        fill_gradients(method, update, [batch_of(PRESENCE)], Step(cases=method.draw(torch.Generator())))
        return torch.cat([p.grad.flatten() for p in method.parameters() if p.grad is not None])

    assert_close(gradient(batched=True), gradient(), rtol=0, atol=1e-12)
    assert fault(gradient, recompute=True) == (
        "The encoders of MulT give several tensors, so they cannot be recomputed: leave out method.recompute."
    )


# ------------------------------------------------------------------------------------------------- prediction


@torch.no_grad()
def test_a_missing_modality_is_predicted_as_zeros():
    method, batch = make(), batch_of([NAMES] * 4)
    text = batch.inputs["text"]
    zeros = Observed(torch.zeros_like(text.values), text.indices, text.valid)
    expected = method.predict({"text": text, "audio": zeros, "vision": zeros})
    assert torch.equal(method.predict(keep(batch.inputs, ("text",))), expected)


@torch.no_grad()
def test_a_vector_is_a_sequence_of_one_step():
    vectors, sequences = make("vector"), make("sequence")
    batch = batch_of(PRESENCE, NAMES)
    unsqueezed = {name: Observed(x.values[:, None], x.indices) for name, x in batch.inputs.items()}
    assert torch.equal(vectors.predict(batch.inputs), sequences.predict(unsqueezed))


@pytest.mark.parametrize(
    ("options", "changed"),
    [
        # Samples 0 to 4 of `PRESENCE` have 1, 2, 3, 4 and 1 of 4 steps: the last slot of sample 3 is valid.
        ({"readout": "last_slot"}, [True, True, True, False, True]),
        # The zeros of a missing modality count as padding. The causal mask hides the padding of complete samples, which
        # is at the end and of the same length in each modality.
        ({"pad_by_zero": True}, [False, False, True, True, False]),
        # With a single step, there is no later step to hide.
        ({"causal": False}, [False, True, True, True, False]),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
@torch.no_grad()
def test_the_options_of_the_published_program_change_the_predictions(options: dict[str, Any], changed: list[bool]):
    inputs = batch_of(PRESENCE).inputs
    default, published = (make(**own).predict(inputs)[:, 0] for own in ({}, options))
    assert ((default - published).abs() > 1e-9).tolist() == changed


@pytest.mark.parametrize(
    ("build", "line"),
    [
        (lambda: MulT(task_of("image")), "MulT is for sequences and vectors; 'text' is of kind image."),
        (lambda: MulT(task_of("sequence", modalities=("text",))), "so it needs two or more; these data have one"),
        (lambda: make(readout="last_step"), "Unknown method.readout 'last_step'. Did you mean 'last_slot'?"),
        (lambda: make(layers=0), "method.layers must be at least 1, not 0"),
    ],
)
def test_wrong_input_is_refused(build: Callable[[], MulT], line: str):
    with pytest.raises(InputError) as caught:
        build()
    assert line in str(caught.value)
