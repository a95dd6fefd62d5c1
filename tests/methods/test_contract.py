"""What holds for every method of the table; a new row is tested by being there."""

import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from anysubset.batches import Batch, Observed, keep
from anysubset.errors import InputError
from anysubset.methods import METHODS, Loss, Method, create_method, method_options
from anysubset.scenarios import Scenario, all_scenarios
from anysubset.system import tensor_file
from anysubset.tasks.segmentation import Segmentation

MODALITIES = ("t1", "t2", "flair")
COMPLETE: list[Scenario] = [MODALITIES] * 3
# One of everything that can be missing: 7 patients.
HOLES = all_scenarios(MODALITIES)
# Steps, each with cases of its own, that show what a method does whatever it draws.
DRAWS = 12

MakeBatch = Callable[..., Batch]
MakeMethod = Callable[..., Method]


def test_the_table_holds_the_methods():
    assert set(METHODS) >= {"gmd", "sharing", "dropout", "full", "ensemble"}
    assert all(issubclass(method, Method) for method in METHODS.values())


@pytest.fixture(params=METHODS)
def name(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture
def make(name: str, task: Segmentation) -> MakeMethod:
    """`make(seed)`: the method, freshly drawn."""

    def make(seed: int = 0) -> Method:
        torch.manual_seed(seed)
        return create_method(name, task, {}, torch.Generator().manual_seed(seed))

    return make


@pytest.fixture
def patient() -> dict[str, Tensor]:
    """One with every modality."""
    generator = torch.Generator().manual_seed(5)
    return {name: torch.randn(1, 1, 16, 16, generator=generator) for name in MODALITIES}


def learn(method: Method, batch: Batch, steps: int = 1) -> dict[str, Tensor | None]:
    """Gradients by parameter, added up over some steps of drawing cases."""
    method.zero_grad()
    for _ in range(steps):
        losses = method.losses(batch)
        if losses:
            method.backward(losses)
    return {name: parameter.grad for name, parameter in method.named_parameters()}


def same(first: Tensor | None, second: Tensor | None) -> bool:
    """Bit for bit, nothing included."""
    if first is None or second is None:
        return first is second
    return torch.equal(first, second)


def names_of(losses: dict[str, Loss]) -> dict[str, set[str]]:
    """By loss, the modalities of its case, where a loss is called after its case."""
    cases = {loss: set(loss.split("+")) for loss in losses}
    return {loss: case for loss, case in cases.items() if case <= set(MODALITIES)}


# ---------------------------------------------------------------------------------------------------- answers


@torch.no_grad()
def test_answers_in_every_scenario(make: MakeMethod, patient: dict[str, Tensor]):
    method = make().eval()
    for scenario in HOLES:
        answer = method.predict(keep(patient, scenario))
        assert answer.shape == (1, 2, 16, 16)
        assert answer.isfinite().all()


@torch.no_grad()
def test_all_scenarios_at_once_are_what_predict_gives_for_each(make: MakeMethod, patient: dict[str, Tensor]):
    method = make().eval()
    found = list(method.predict_scenarios(patient, HOLES))
    assert [scenario for scenario, _ in found] == HOLES
    for scenario, answer in found:
        assert_close(answer, method.predict(keep(patient, scenario)), rtol=1e-4, atol=1e-5)


@torch.no_grad()
def test_some_scenarios_come_in_the_order_in_which_they_were_asked_for(make: MakeMethod, patient: dict[str, Tensor]):
    method = make().eval()
    asked = [("t2", "flair"), ("t1",)]
    # What the patient has beyond them, and what the patient lacks, do not matter.
    for inputs in (patient, keep(patient, MODALITIES[::-1])):
        assert [scenario for scenario, _ in method.predict_scenarios(inputs, iter(asked))] == asked
    ((_, answer),) = method.predict_scenarios(keep(patient, ("flair",)), [("flair",)])
    assert_close(answer, method.predict(keep(patient, ("flair",))), rtol=1e-4, atol=1e-5)


@torch.no_grad()
def test_a_whole_volume_is_carried_by_the_task(make: MakeMethod, task: Segmentation):
    method = make().eval()
    generator = torch.Generator().manual_seed(6)
    volumes = {name: torch.randn(1, 1, 20, 16, 2, generator=generator) for name in MODALITIES}
    for scenario, answer in method.predict_scenarios(volumes, HOLES, task.carry):
        assert answer.shape == (1, 2, 20, 16, 2)
        assert_close(answer, task.carry(method.predict, keep(volumes, scenario)), rtol=1e-4, atol=1e-5)


@torch.no_grad()
def test_patients_of_a_batch_get_what_they_would_get_alone(make: MakeMethod, make_batch: MakeBatch):
    method, batch = make().eval(), make_batch(HOLES)
    together = method.predict(batch.inputs)
    assert together.shape == batch.target.shape
    for row, scenario in enumerate(HOLES):
        alone = {}
        for name in scenario:
            observed = batch.inputs[name]
            alone[name] = observed.values[observed.indices.tolist().index(row)][None]
        assert_close(together[row : row + 1], method.predict(alone), rtol=1e-4, atol=1e-5)


@torch.no_grad()
def test_plain_tensors_are_what_every_patient_has(make: MakeMethod, make_batch: MakeBatch):
    method, batch = make().eval(), make_batch(COMPLETE)
    plain = {name: observed.values for name, observed in batch.inputs.items()}
    assert torch.equal(method.predict(plain), method.predict(batch.inputs))


def test_no_modality_is_refused(make: MakeMethod):
    with pytest.raises(InputError, match="no modality is present"):
        make().predict({})


def test_an_unknown_modality_is_refused(make: MakeMethod, patient: dict[str, Tensor]):
    with pytest.raises(InputError, match="Unknown modality 't1c'"):
        make().predict({"t1c": patient["t1"]})


# ------------------------------------------------------------------------------- missing means not there


@pytest.mark.parametrize("presence", [HOLES, [("t1",), ("t1", "t2")]], ids=["every scenario", "nobody has flair"])
def test_nothing_that_is_missing_changes_a_bit(make: MakeMethod, make_batch: MakeBatch, presence: list[Scenario]):
    seen = []
    for filler in (torch.nan, 0.0, 1e30):
        method, batch = make(), make_batch(presence, filler=filler)
        values = {name: loss.value.detach() for name, loss in method.losses(batch).items()}
        gradients = learn(method, batch, steps=2)
        with torch.no_grad():
            seen.append((values, gradients, method.eval().predict(batch.inputs)))
    (values, gradients, answer), *others = seen
    assert answer.isfinite().all()
    assert all(gradient is None or gradient.isfinite().all() for gradient in gradients.values())
    for other_values, other_gradients, other_answer in others:
        assert list(values) == list(other_values)
        assert all(torch.equal(values[name], other_values[name]) for name in values)
        assert all(same(gradients[name], other_gradients[name]) for name in gradients)
        assert torch.equal(answer, other_answer)


@torch.no_grad()
@pytest.mark.parametrize("sick", MODALITIES)
def test_a_modality_reaches_no_scenario_without_it(make: MakeMethod, patient: dict[str, Tensor], sick: str):
    method = make().eval()
    poisoned = {**patient, sick: torch.full_like(patient[sick], torch.nan)}
    clean, found = dict(method.predict_scenarios(patient, HOLES)), dict(method.predict_scenarios(poisoned, HOLES))
    without = [scenario for scenario in HOLES if sick not in scenario]
    assert len(without) == 3
    for scenario in without:
        assert torch.equal(found[scenario], clean[scenario])


@torch.no_grad()
def test_a_patients_modality_reaches_no_other_patient(make: MakeMethod, make_batch: MakeBatch):
    method, batch = make().eval(), make_batch([("t1", "t2"), ("t1",), MODALITIES])
    clean = method.predict(batch.inputs)
    t2 = batch.inputs["t2"]
    assert t2.indices.tolist() == [0, 2]
    values = t2.values.clone()
    values[0] = torch.nan
    found = method.predict({**batch.inputs, "t2": Observed(values, t2.indices)})
    assert torch.equal(found[1:], clean[1:])


# --------------------------------------------------------------------------------------------------- training


def test_losses_are_single_finite_numbers_with_counts_of_whom_they_were_taken_over(
    make: MakeMethod, make_batch: MakeBatch
):
    method, batch = make(), make_batch(HOLES)
    taken = 0
    for _ in range(DRAWS):
        losses = method.losses(batch)
        taken += len(losses)
        for loss in losses.values():
            assert loss.value.ndim == 0
            assert loss.value.isfinite()
            assert loss.value.requires_grad
            assert 1 <= loss.eligible <= len(HOLES)
        # Of all 7 scenarios, those that hold a case of one, two or three modalities are 4, 2 and 1.
        for loss, case in names_of(losses).items():
            assert losses[loss].eligible == {1: 4, 2: 2, 3: 1}[len(case)]
    assert taken


def test_a_case_that_nobody_is_eligible_for_gives_no_loss(make: MakeMethod, make_batch: MakeBatch):
    method, batch = make(), make_batch([("t1",), ("t1",)])
    for _ in range(DRAWS):
        losses = method.losses(batch)
        assert all(case == {"t1"} for case in names_of(losses).values())
        # Whatever a loss is called: nothing can be taken over more than is there, and none over nothing.
        assert all(1 <= loss.eligible <= 2 and loss.value.isfinite() for loss in losses.values())


def test_every_parameter_learns_from_complete_data(make: MakeMethod, make_batch: MakeBatch):
    # Of these methods none may leave a parameter out: each modality is in some case, and each case reaches the head.
    method, batch = make(), make_batch(COMPLETE)
    reached, moved = set(), set()
    for _ in range(DRAWS):
        for name, gradient in learn(method, batch).items():
            if gradient is not None:
                assert gradient.isfinite().all()
                reached.add(name)
                if gradient.any():
                    moved.add(name)
    every = {name for name, _ in method.named_parameters()}
    assert every - reached == set()
    # A bias that a norm of one channel a group comes right after is cancelled by it.
    assert {name for name in every - moved if not name.endswith(".bias")} == set()


def test_incomplete_patients_do_not_keep_a_step_from_being_taken(make: MakeMethod, make_batch: MakeBatch):
    method, batch = make(), make_batch(HOLES)
    optimizer = torch.optim.Adam(method.parameters(), lr=1e-3)
    before = {name: value.clone() for name, value in method.state_dict().items()}
    learn(method, batch, steps=2)
    optimizer.step()
    after = method.state_dict()
    assert all(value.isfinite().all() for value in after.values())
    assert any(not torch.equal(value, before[name]) for name, value in after.items())


def test_the_same_seed_gives_the_same_bits(make: MakeMethod, make_batch: MakeBatch):
    def trained(seed: int) -> dict[str, Tensor]:
        method = make(seed)
        optimizer = torch.optim.Adam(method.parameters(), lr=1e-2)
        for presence in (COMPLETE, HOLES):
            learn(method, make_batch(presence))
            optimizer.step()
        return method.state_dict()

    first, second, other = trained(0), trained(0), trained(1)
    assert list(first) == list(second)
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert any(not torch.equal(first[name], other[name]) for name in first)


def test_training_draws_from_the_methods_own_generator_alone(make: MakeMethod, make_batch: MakeBatch):
    # Its state is what a run saves: chance from elsewhere could not be resumed.
    method, batch = make(), make_batch(HOLES)
    before = torch.get_rng_state()
    learn(method, batch, steps=3)
    assert torch.equal(torch.get_rng_state(), before)


@torch.no_grad()
def test_a_method_that_was_saved_and_loaded_answers_the_same(
    make: MakeMethod, patient: dict[str, Tensor], tmp_path: Path
):
    method, other = make(0).eval(), make(1).eval()
    tensor_file.save(tmp_path / "best.safetensors", method.state_dict(), {"step": 3})
    assert not torch.equal(other.predict(patient), method.predict(patient))
    tensors, facts = tensor_file.load(tmp_path / "best.safetensors")
    other.load_state_dict(tensors)
    assert facts == {"step": 3}
    for scenario in HOLES:
        assert torch.equal(other.predict(keep(patient, scenario)), method.predict(keep(patient, scenario)))


# ----------------------------------------------------------------------------------------- names and options


def test_every_option_has_a_default_and_is_explained(name: str):
    for option, default in method_options(name).items():
        assert default is None or isinstance(default, (str, int, float, bool))
        assert f"{option}:" in (METHODS[name].__doc__ or "")


def test_defaults_may_be_given_as_they_are(name: str, task: Segmentation):
    create_method(name, task, method_options(name))


def test_an_unknown_option_is_told_with_the_nearest_one(name: str, task: Segmentation):
    for option in method_options(name):
        with pytest.raises(InputError, match=f"Did you mean {option!r}"):
            create_method(name, task, {option[:-1]: "all"})
    with pytest.raises(InputError, match=f"Unknown option of method {name!r} 'xyz'"):
        create_method(name, task, {"xyz": 1})


def test_an_unknown_method_is_told_with_the_nearest_one(task: Segmentation):
    with pytest.raises(InputError, match=r"Unknown method 'ensembel'\. Did you mean 'ensemble'\?"):
        create_method("ensembel", task, {})
    with pytest.raises(InputError, match=r"Unknown method 'xyz'\. Choose from: gmd, sharing, dropout, full, ensemble"):
        method_options("xyz")


def test_the_file_of_a_method_opens_with_what_it_is(name: str):
    # `anysubset methods` shows this line.
    first, *_ = (sys.modules[METHODS[name].__module__].__doc__ or "").splitlines() or [""]
    assert len(first.split()) >= 4
