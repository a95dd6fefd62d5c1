"""Training on cases: which cases are drawn, whose losses are taken, and how often modalities are encoded."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from anysubset.batches import Batch, Observed, collate, keep
from anysubset.methods.cases import DRAWN, CaseMethod
from anysubset.methods.method import Method, Objective, Step
from anysubset.methods.update import Gradients, Mean, fill_gradients
from anysubset.models.network import Encoded
from anysubset.scenarios import Scenario, all_scenarios, scenario_name
from anysubset.tasks.segmentation import Segmentation
from anysubset.tasks.task import Task

MakeBatch = Callable[..., Batch]
Fill = Callable[..., Gradients | None]
LossesOf = Callable[..., dict[str, Tensor]]

THREE = {"a": (6.0, 0.0), "b": (0.0, 6.0), "c": (-3.0, 3.0)}


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def on_cases(task: Task, **options: Any) -> CaseMethod:
    """A `CaseMethod` with the network of the toy task."""
    return CaseMethod(task, task.network(), **options)


def samples_with(presence: Sequence[Scenario]) -> Batch:
    """A batch with a sample of random numbers for each scenario, in float64."""
    generator = seeded(3)
    return collate(
        (
            {name: torch.randn(2, generator=generator, dtype=torch.float64) for name in present},
            torch.zeros(1),
            f"p{number}",
        )
        for number, present in enumerate(presence)
    )


# ------------------------------------------------------------------------------------------- the cases of a step


@pytest.mark.parametrize(
    ("cases", "expected"),
    [
        ("all", ["a", "b", "c", "a+b", "a+c", "b+c", "a+b+c"]),
        ("full", ["a+b+c"]),
        ("missing=0", ["a+b+c"]),
        ("missing=1", ["a+b", "a+c", "b+c"]),
        ("missing=2", ["a", "b", "c"]),
    ],
)
def test_the_cases_of_a_step_are_those_that_the_option_names(
    make_linear, losses_of: LossesOf, cases: str, expected: list[str]
):
    task, batch = make_linear(**THREE)
    method = on_cases(task, cases=cases)
    step = Step(cases=method.draw(seeded()))
    assert list(losses_of(method, batch)) == expected
    objectives = method.objectives(step)
    assert list(objectives) == expected
    assert [objective.needs for objective in objectives.values()] == [tuple(name.split("+")) for name in expected]
    assert all(objective.case for objective in objectives.values())


@pytest.mark.parametrize(("cases", "number"), [("random=4", 4), ("random=1", 1)])
def test_random_cases_depend_on_the_state_of_the_generator_alone(make_linear, cases: str, number: int):
    task, _ = make_linear(**THREE)
    method, generator = on_cases(task, cases=cases), seeded(1)
    drawn = [method.draw(generator) for _ in range(20)]
    assert {len(names) for names in drawn} == {number}
    assert len(set(drawn)) > 1
    again, generator = on_cases(task, cases=cases), seeded(1)
    assert [again.draw(generator) for _ in range(20)] == drawn


def test_all_cases_are_the_default_up_to_four_modalities_and_five_random_ones_beyond(make_linear):
    four, five = ({name: (1.0, float(number)) for number, name in enumerate("abcde"[:count])} for count in (4, 5))
    task, _ = make_linear(**four)
    assert list(on_cases(task).draw(seeded())) == all_scenarios("abcd")
    task, _ = make_linear(**five)
    method, generator = on_cases(task), seeded()
    drawn = [method.draw(generator) for _ in range(10)]
    assert {len(cases) for cases in drawn} == {5}
    assert len(set(drawn)) > 1


def test_an_unknown_value_of_cases_is_refused_with_the_valid_ones(make_linear, fault):
    task, _ = make_linear(**THREE)
    assert "Unknown cases 'al'. Did you mean 'all'?" in fault(on_cases, task, cases="al")
    assert "Did you mean 'sample'?" in fault(on_cases, task, cases="sampel")
    assert "Choose from: all, full, missing=R, random=K, sample, sample=size." in fault(on_cases, task, cases="xyz")


# -------------------------------------------------------------------------------------------------- their losses


def test_the_loss_of_a_case_is_the_mean_over_its_eligible_samples_alone(task: Segmentation, make_batch: MakeBatch):
    torch.manual_seed(0)
    method = on_cases(task)
    batch = make_batch([("t1", "t2"), ("flair",), task.modalities])
    step = Step(cases=method.draw(seeded()))
    losses = method.losses(batch, step)
    # By hand: t1 and t2 are both in patients 0 and 2, t1 and flair in patient 2.
    expected = {"t1": 2, "t2": 2, "flair": 2, "t1+t2": 2, "t1+flair": 1, "t2+flair": 1, "t1+t2+flair": 1}
    assert fill_gradients(method, Mean(method), [batch], step).totals == expected
    t1, t2 = batch.inputs["t1"].values, batch.inputs["t2"].values
    assert_close(losses["t1+t2"], task.loss(method.predict({"t1": t1, "t2": t2}), batch.target[[0, 2]]))
    last = {name: batch.inputs[name].values[-1:] for name in ("t1", "flair")}
    assert_close(losses["t1+flair"], task.loss(method.predict(last), batch.target[2:]))


def test_the_full_case_has_no_loss_if_every_sample_is_incomplete(task: Segmentation, make_batch: MakeBatch):
    method = on_cases(task, cases="full")
    step = Step(cases=method.draw(seeded()))
    # In the first batch each modality is present in a sample, but no sample has all; in the second, flair is missing.
    assert method.losses(make_batch([("t1", "t2"), ("flair",)]), step) == {}
    assert method.losses(make_batch([("t1", "t2"), ("t1",)]), step) == {}


def counted(method: CaseMethod) -> Counter[str]:
    """Counts, by modality, how often it passes through the backbone from now on."""
    passes: Counter[str] = Counter()
    method.network.backbone.register_forward_hook(lambda module, inputs, output: passes.update([inputs[1]]))
    return passes


def test_each_modality_is_encoded_once_per_step_and_once_for_the_prediction_of_all_scenarios(
    task: Segmentation, make_batch: MakeBatch, losses_of: LossesOf
):
    method, batch = on_cases(task), make_batch([task.modalities] * 2)
    passes = counted(method)
    assert len(losses_of(method, batch)) == 7
    assert passes == dict.fromkeys(task.modalities, 1)
    passes.clear()
    patient = {name: observed.values[:1] for name, observed in batch.inputs.items()}
    assert len(list(method.predict_scenarios(patient, all_scenarios(task.modalities)))) == 7
    assert passes == dict.fromkeys(task.modalities, 1)


def test_a_modality_that_no_case_uses_is_not_encoded(task: Segmentation, make_batch: MakeBatch, losses_of: LossesOf):
    method = on_cases(task, cases="missing=0")
    passes = counted(method)
    # No sample has flair, so none is eligible for the full case, and no modality is encoded.
    assert losses_of(method, make_batch([("t1", "t2"), ("t1",)])) == {}
    assert not passes


def test_a_modality_outside_the_case_gets_no_gradient(task: Segmentation, make_batch: MakeBatch, fill: Fill):
    torch.manual_seed(0)
    method, batch = on_cases(task, cases="random=1"), make_batch([task.modalities] * 2)
    update, generator = Mean(method), seeded()
    for _ in range(5):
        method.zero_grad()
        (case,) = fill(method, update, batch, generator).totals
        reached = {
            name.rpartition(".")[2] for name, parameter in method.named_parameters() if parameter.grad is not None
        }
        assert reached & set(task.modalities) == set(case.split("+"))


# -------------------------------------------------------------------------------------- one scenario for each sample


class Noting(CaseMethod):
    """A method that records in `noted` the scenario that is drawn for each sample."""

    def __init__(self, task: Task, **options: Any) -> None:
        super().__init__(task, task.network(), **options)
        self.noted: dict[str, Scenario] = {}

    def drawn_output(self, features: Mapping[str, Encoded], batch: Batch, step: Step) -> Any:
        output_by_sample = self.network.output_by_sample

        def noting(features: Mapping[str, Encoded], scenarios: Sequence[Scenario]) -> Any:
            self.noted |= dict(zip(batch.ids, scenarios, strict=True))
            return output_by_sample(features, scenarios)

        self.network.output_by_sample = noting  # type: ignore[method-assign]
        try:
            return super().drawn_output(features, batch, step)
        finally:
            del self.network.output_by_sample


PRESENCE: list[Scenario] = [("a", "b", "c"), ("a", "c"), ("b",), ("a", "b", "c"), ("a", "b")]


@pytest.mark.parametrize("cases", ["sample", "sample=size"])
def test_each_sample_counts_once_in_a_scenario_of_its_present_modalities(make_linear, cases: str):
    task, _ = make_linear(**THREE)
    method, batch = Noting(task, cases=cases), samples_with(PRESENCE)
    assert method.draw(seeded()) == ()
    for number in range(10):
        step = Step(number)
        assert method.objectives(step) == {DRAWN: Objective(case=True)}
        assert list(method.losses(batch, step)) == [DRAWN]
        assert all(
            scenario and set(scenario) <= set(own)
            for scenario, own in zip(method.noted.values(), PRESENCE, strict=True)
        )
        gradients = fill_gradients(method, Mean(method), [batch], step)
        assert gradients.totals == {DRAWN: 5}


@pytest.mark.parametrize("cases", ["sample", "sample=size"])
def test_the_loss_by_sample_is_the_mean_over_samples_each_in_its_own_scenario(make_linear, cases: str):
    task, _ = make_linear(**THREE)
    method, batch = Noting(task, cases=cases), samples_with(PRESENCE)
    for parameter in method.parameters():
        parameter.data = torch.randn(parameter.shape, generator=seeded(4), dtype=parameter.dtype)
    loss = method.losses(batch, Step(7))[DRAWN]
    # The loss of the toy task is the mean output, so it must equal the mean over samples, each predicted by itself.
    outputs = []
    for row, scenario in enumerate(method.noted.values()):
        alone = {}
        for name in scenario:
            observed = batch.inputs[name]
            alone[name] = observed.values[observed.indices.tolist().index(row)][None]
        outputs.append(method.predict(alone))
    assert_close(loss, torch.cat(outputs).mean(), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("cases", ["sample", "sample=size"])
def test_a_sample_has_the_same_scenario_in_any_micro_batch(make_linear, cases: str):
    task, _ = make_linear(**THREE)
    method, whole = Noting(task, cases=cases), samples_with(PRESENCE)
    step = Step(3, seed=5)
    method.losses(whole, step)
    drawn = dict(method.noted)
    method.noted.clear()
    # Sample 3 by itself, then the others in another order of parts.
    for rows in ([3], [2, 4], [0, 1]):
        inputs = {}
        for name, observed in whole.inputs.items():
            rank = [position for position, row in enumerate(observed.indices.tolist()) if row in rows]
            if rank:
                indices = torch.tensor([rows.index(observed.indices[position]) for position in rank])
                inputs[name] = Observed(observed.values[rank], indices)
        method.losses(Batch(inputs, whole.target[rows], tuple(whole.ids[row] for row in rows)), step)
    assert {sample: method.noted[sample] for sample in drawn} == drawn
    # Another step, stage or seed draws other scenarios.
    for other in (Step(4, seed=5), Step(3, stage="last", seed=5), Step(3, seed=6)):
        several = samples_with([("a", "b", "c")] * 20)
        method.losses(several, step)
        before = dict(method.noted)
        method.losses(several, other)
        assert before != method.noted


def test_drawing_scenarios_by_sample_leaves_the_global_generator_unchanged(make_linear):
    task, _ = make_linear(**THREE)
    method, batch = Noting(task, cases="sample"), samples_with(PRESENCE)
    before = torch.get_rng_state()
    method.losses(batch, Step(1))
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize(
    ("cases", "chances"),
    # Of the 7 scenarios of three modalities, 3 have one modality, 3 have two and 1 has three. `sample=size` draws the
    # number of modalities uniformly.
    [("sample", (3 / 7, 3 / 7, 1 / 7)), ("sample=size", (1 / 3, 1 / 3, 1 / 3))],
)
def test_scenarios_by_sample_have_the_probabilities_of_the_option(make_linear, cases: str, chances: tuple[float, ...]):
    task, _ = make_linear(**THREE)
    method, count = Noting(task, cases=cases), 2100
    batch = samples_with([("a", "b", "c")] * count)
    method.losses(batch, Step(0))
    sizes, scenarios = Counter(map(len, method.noted.values())), Counter(method.noted.values())
    for size, chance in enumerate(chances, start=1):
        # 5 standard deviations of the number of hits.
        assert abs(sizes[size] - count * chance) < 5 * (count * chance * (1 - chance)) ** 0.5
    assert set(scenarios) == set(all_scenarios(("a", "b", "c")))


def test_the_losses_of_cases_can_be_computed_even_if_scenarios_are_drawn_by_sample(make_linear):
    task, batch = make_linear(**THREE)
    by_sample, by_step = on_cases(task, cases="sample"), on_cases(task, cases="all")
    step = Step(cases=tuple(all_scenarios(task.modalities)))
    assert by_sample.case_losses(batch, step) == by_step.losses(batch, step)


# ------------------------------------------------------------------------------------------------ extra objectives


class WithSize(CaseMethod):
    """A method with three times the loss of each case, and an extra objective on the features of one modality."""

    def loss(self, output: Tensor, target: Tensor, step: Step) -> Tensor:
        return 3 * super().loss(output, target, step)

    def extra_objectives(self, step: Step) -> dict[str, Objective]:
        return {"size": Objective(("c",), weight=0.5)}

    def extra_losses(self, features: Mapping[str, Encoded], batch: Batch, step: Step) -> dict[str, Tensor]:
        return {"size": features["c"].values.mean()} if "c" in features else {}


@pytest.mark.parametrize("cases", ["missing=2", "sample"])
def test_an_extra_objective_is_declared_after_the_cases_and_gets_the_features_of_every_modality(
    make_linear, cases: str
):
    task, batch = make_linear(**THREE)
    method = WithSize(task, task.network(), cases=cases)
    passes = counted(method)
    step = Step(cases=method.draw(seeded())[:1])  # Of the cases, {a} alone.
    name = "a" if step.cases else DRAWN
    objectives = method.objectives(step)
    assert list(objectives) == list(method.losses(batch, step)) == [name, "size"]
    assert (objectives[name].case, objectives["size"]) == (True, Objective(("c",), case=False, weight=0.5))
    assert passes == dict.fromkeys("abc", 1)


def test_an_extra_objective_is_added_with_its_weight_by_hand(make_linear, fill: Fill):
    # Three times the mean of the gradients of {a}, {b} and {c} is (3, 9); the extra objective adds half of (-3, 3).
    task, batch = make_linear(**THREE)
    method = WithSize(task, task.network(), cases="missing=2")
    fill(method, Mean(method), batch)
    assert method.network.backbone.s.grad.flatten().tolist() == pytest.approx([3 - 1.5, 9 + 1.5])
    # On the offsets of a and b three times a third; on that of c the extra objective adds a half.
    assert [method.network.backbone.own[name].grad.item() for name in "abc"] == pytest.approx([1.0, 1.0, 1.5])


def test_an_extra_objective_without_samples_is_left_out(make_linear, fill: Fill):
    task, batch = make_linear(**THREE)
    method = WithSize(task, task.network(), cases="missing=2")
    without = Batch(keep(batch.inputs, "ab"), batch.target, batch.ids)
    assert fill(method, Mean(method), without).totals == {"a": 1, "b": 1}


def test_the_losses_of_the_cases_alone_leave_extra_objectives_out(make_linear):
    task, batch = make_linear(**THREE)
    method = WithSize(task, task.network(), cases="missing=2")
    assert list(method.case_losses(batch, Step(cases=method.draw(seeded())))) == ["a", "b", "c"]


# ------------------------------------------------------------------------------------------------------ prediction


class Doubled(CaseMethod):
    """A method that predicts twice the window average of the network's output."""

    def prediction(self, carried: Tensor) -> Tensor:
        return 2 * carried


@torch.no_grad()
def test_scenarios_predicted_together_equal_those_predicted_alone_and_prediction_acts_on_window_averages(
    task: Segmentation, make_batch: MakeBatch
):
    torch.manual_seed(0)
    network = task.network().eval()
    plain, doubled = CaseMethod(task, network), Doubled(task, network)
    batch = make_batch([task.modalities] * 2)
    inputs = {name: observed.values for name, observed in batch.inputs.items()}
    scenarios = all_scenarios(task.modalities)
    sizes = []

    def carry(function, inputs):
        carried = function(inputs)
        sizes.append(tuple(carried.shape))
        return carried

    predictions = dict(doubled.predict_scenarios(inputs, scenarios, carry))
    # One pass over a volume gives seven scenarios times two regions as channels.
    assert sizes == [(2, 7 * 2, 16, 16)]
    assert list(predictions) == scenarios
    for scenario, prediction in predictions.items():
        alone = keep(inputs, scenario)
        assert_close(prediction, doubled.predict(alone), rtol=1e-5, atol=1e-6)
        assert_close(prediction, 2 * plain.predict(alone), rtol=1e-5, atol=1e-6)


def test_the_names_of_objectives_are_those_of_the_scenarios(make_linear):
    task, _ = make_linear(**THREE)
    method: Method = on_cases(task)
    names = list(method.objectives(Step(cases=method.draw(seeded()))))
    assert names == [scenario_name(case) for case in all_scenarios(task.modalities)]
