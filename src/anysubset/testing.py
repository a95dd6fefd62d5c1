"""Checks of the contract that every method must fulfil, for methods in this package and outside it.

    from anysubset.testing import check_method
    check_method(MyMethod)                     # every check, on every toy task that MyMethod fits
    check_method(MyMethod, {"width": 8})       # with small options, so that the checks take seconds

Each check raises AssertionError with one line that says what is wrong. As `sklearn.utils.estimator_checks` does for
estimators.
"""

import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from anysubset.batches import Batch, Observed, collate, keep
from anysubset.errors import InputError
from anysubset.methods.method import Method, Step
from anysubset.methods.table import Row, create, options_of
from anysubset.methods.update import UPDATES, Gradients, Update, fill_gradients
from anysubset.scenarios import Scenario, all_scenarios, scenario_name
from anysubset.system import tensor_file
from anysubset.tasks.prediction import Prediction, Stream
from anysubset.tasks.segmentation import Segmentation
from anysubset.tasks.task import Task

MODALITIES = ("text", "audio", "vision")
SCENARIOS = all_scenarios(MODALITIES)
COMPLETE: tuple[Scenario, ...] = (MODALITIES,) * 6
FEW: tuple[Scenario, ...] = (("text",), MODALITIES, ("audio", "vision"))
STEPS = 24  # Enough for every case to be drawn.
EPOCH = 50.0  # Losses that are phased in over the first epochs are fully in.


@dataclass(frozen=True)
class Toy:
    """A small task with random samples, in float64.

    task: with modalities `MODALITIES`. shape: of one sample of a modality. target: from the values of the first
    modality and the index of the sample. padded: whether the last step of every other sample is padding.
    complete: the presence of a complete batch. incomplete: those of an incomplete one; few where a step takes long.
    """

    task: Task
    shape: tuple[int, ...]
    target: Callable[[Tensor, int], Tensor]
    padded: bool = False
    complete: tuple[Scenario, ...] = COMPLETE
    incomplete: tuple[Scenario, ...] = tuple(SCENARIOS)

    def batch(self, presence: Sequence[Scenario], filler: float = torch.nan) -> Batch:
        """A batch of samples with these modalities; `filler` stands in padded steps, and wherever one is missing."""
        generator = torch.Generator().manual_seed(3)
        raw = torch.randn(len(presence), len(MODALITIES), *self.shape, generator=generator, dtype=torch.float64)
        samples = []
        for index, scenario in enumerate(presence):
            target = self.target(raw[index, 0], index)
            for position, modality in enumerate(MODALITIES):
                if modality not in scenario:
                    raw[index, position] = filler
            inputs = {modality: raw[index, MODALITIES.index(modality)] for modality in scenario}
            samples.append((inputs, target, f"s{index}"))
        batch = collate(samples)
        groups = tuple(f"g{index // 3}" for index in range(len(presence)))
        batch = replace(batch, groups=groups)
        if not self.padded:
            return batch
        padded = {}
        for modality, observed in batch.inputs.items():
            valid = torch.ones(observed.values.shape[:2], dtype=torch.bool)
            valid[observed.indices % 2 == 0, -1] = False
            values = observed.values.masked_fill(~valid[..., None], filler)
            padded[modality] = Observed(values, observed.indices, valid)
        return replace(batch, inputs=padded)


def toys() -> dict[str, Toy]:
    """The toy tasks by name: slices, volumes, sequences, vectors and images."""
    regions = {"whole": (1, 2), "core": (2,)}

    def regions_of(x: Tensor, index: int) -> Tensor:
        return torch.cat([x > 0.5, x > 1.0])

    def streams(kind: str, size: int) -> dict[str, Stream]:
        return dict.fromkeys(MODALITIES, Stream(kind, size))

    return {
        "slices": Toy(Segmentation(MODALITIES, regions, (16, 16), width=0.25, pool="sample"), (1, 16, 16), regions_of),
        "volumes": Toy(
            Segmentation(MODALITIES, regions, (16, 16, 16), width=0.25, pool="sample"),
            (1, 16, 16, 16),
            regions_of,
            complete=COMPLETE[:2],
            incomplete=FEW,
        ),
        "sequences": Toy(
            Prediction(MODALITIES, streams("sequence", 4), preset="ds-transformer", width=8, layers=1, dropout=0.0),
            (5, 4),
            lambda x, index: x[0].mean(),
            padded=True,
        ),
        "vectors": Toy(
            Prediction(MODALITIES, streams("vector", 4), ("no", "yes"), preset="vectors", width=8, dropout=0.0),
            (4,),
            lambda x, index: torch.tensor(index % 2),
        ),
        "images": Toy(
            Prediction(MODALITIES, streams("image", 1), ("no", "yes"), preset="vectors", width=8, dropout=0.0),
            (1, 8, 8),
            lambda x, index: torch.tensor(index % 2),
        ),
    }


@dataclass(frozen=True)
class Subject:
    """A row of the table of methods under test on a toy task, with small options."""

    row: Row
    toy: Toy
    options: Mapping[str, Any]

    def create(self, seed: int = 0, **options: Any) -> tuple[Method, Update]:
        """A new method in float64, and its update, initialised from a seed."""
        torch.manual_seed(seed)
        generator = torch.Generator().manual_seed(seed)
        chosen = {**self.options, **options}
        method, update = create(self.row, self.row.method.__name__, self.toy.task, chosen, generator)
        method.begin([f"s{index}" for index in range(len(SCENARIOS))])
        return method.double(), update


def fits(row: Row, toy: Toy, options: Mapping[str, Any]) -> bool:
    """Whether the method can be made for a toy task; it refuses others with InputError."""
    if not isinstance(toy.task, row.method.fits):
        return False
    try:
        create(row, row.method.__name__, toy.task, options)
    except InputError:
        return False
    return True


def train_steps(
    method: Method, update: Update, batches: Sequence[Batch], steps: int, optimize: bool = False
) -> Iterator[tuple[Step, Gradients | None]]:
    """Fill `.grad` for some steps of each stage, and yield each step; the optimizer steps only if `optimize`."""
    generator = torch.Generator().manual_seed(0)
    for stage in method.stages:
        method.enter(stage.name)
        trained = [parameter for parameter in method.parameters() if parameter.requires_grad]
        optimizer = torch.optim.Adam(trained, lr=1e-3)
        for number in range(steps):
            method.zero_grad()
            step = Step(number, EPOCH, stage.name, method.draw(generator), seed=1)
            gradients = fill_gradients(method, update, batches, step)
            yield step, gradients
            if optimize:
                optimizer.step()


def gradients_of(method: Method) -> dict[str, Tensor | None]:
    """`.grad` by the name of the parameter."""
    return {name: parameter.grad for name, parameter in method.named_parameters()}


def identical(first: Mapping[str, Tensor | None], second: Mapping[str, Tensor | None]) -> bool:
    """Whether two states are the same to the bit; None is the same as None alone."""
    for name, one in first.items():
        other = second[name]
        if (one is None) != (other is None):
            return False
        if one is not None and other is not None and not torch.equal(one, other):
            return False
    return True


# --------------------------------------------------------------------------------------------------- the checks


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
    for presence in (subject.toy.incomplete, (("text",), ("text", "audio"))):
        states = []
        for filler in (torch.nan, 0.0, 1e30):
            method, update = subject.create()
            batch = subject.toy.batch(presence, filler)
            for _ in train_steps(method, update, [batch], 2):
                pass
            gradients = gradients_of(method)
            with torch.no_grad():
                states.append((gradients, method.eval().predict(batch.inputs)))
        (gradients, prediction), *others = states
        assert prediction.isfinite().all(), "A missing modality makes a prediction NaN."
        for other_gradients, other_prediction in others:
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
    """Every parameter receives a finite gradient in some stage; incomplete batches can be trained on."""
    method, update = subject.create()
    reached = set()
    for step, gradients in train_steps(method, update, [subject.toy.batch(subject.toy.complete)], STEPS):
        assert gradients is not None, "A complete batch has no objective."
        for name, gradient in gradients_of(method).items():
            if gradient is not None:
                assert gradient.isfinite().all(), f"The gradient of {name} is not finite."
                reached.add(name)
        if step.stage == method.stages[-1].name and len(reached) == len(list(method.parameters())):
            break
    missed = {name for name, _ in method.named_parameters()} - reached
    assert not missed, f"No stage trains {', '.join(sorted(missed)[:3])}."
    method, update = subject.create()
    before = {name: value.clone() for name, value in method.state_dict().items()}
    for _ in train_steps(method, update, [subject.toy.batch(subject.toy.incomplete)], 2, optimize=True):
        pass
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

    def trained(seed: int) -> dict[str, Tensor]:
        method, update = subject.create(seed)
        for _ in train_steps(method, update, [subject.toy.batch(subject.toy.incomplete)], 2, optimize=True):
            pass
        return method.state_dict()

    first = trained(0)
    assert identical(first, trained(0)), "The same seed gives other parameters."
    assert not identical(first, trained(1)), "Another seed gives the same parameters."


def split(batch: Batch, at: int) -> list[Batch]:
    """Two micro-batches: the samples before an index, and the others."""
    parts = []
    for start, stop in ((0, at), (at, len(batch.ids))):
        inputs = {}
        for modality, observed in batch.inputs.items():
            inside = (observed.indices >= start) & (observed.indices < stop)
            if inside.any():
                valid = None if observed.valid is None else observed.valid[inside]
                inputs[modality] = Observed(observed.values[inside], observed.indices[inside] - start, valid)
        groups = batch.groups and batch.groups[start:stop]
        target, ids = batch.target[start:stop], batch.ids[start:stop]
        parts.append(Batch(inputs, target, ids, groups))
    return parts


def check_micro_batches(subject: Subject) -> None:
    """The gradient of a batch is the same whole and in two micro-batches, unless an objective is pooled."""
    method, update = subject.create()
    if method.pools_batch():
        return
    batch = subject.toy.batch(subject.toy.incomplete)
    gradients = []
    for parts in ([batch], split(batch, 1)):
        method, update = subject.create()
        method.eval()  # Dropout draws other values for other parts.
        for _ in train_steps(method, update, parts, 1):
            pass
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
    batch = subject.toy.batch(subject.toy.complete)
    method, update = subject.create()
    with torch.enable_grad():
        for _ in train_steps(method, update, [batch], 2, optimize=True):
            pass
    method.eval()
    torch.manual_seed(9)
    other, _ = create(subject.row, subject.row.method.__name__, subject.toy.task, subject.options)
    other.double().eval()
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
    shares = bool(subject.create()[0].shared_parameters())
    for gradients in UPDATES:
        try:
            method, update = subject.create(gradients=gradients)
        except InputError as error:
            if shares:
                raise AssertionError(f"gradients={gradients} is refused: {error}") from error
            continue
        for _ in train_steps(method, update, [subject.toy.batch(subject.toy.incomplete)], 2, optimize=True):
            pass
        assert all(value.isfinite().all() for value in method.state_dict().values()), f"{gradients} gives NaN."


CHECKS: tuple[Callable[[Subject], None], ...] = (
    check_predictions,
    check_samples_are_independent,
    check_refusals,
    check_missing_is_absent,
    check_scenarios_without_a_modality,
    check_learning,
    check_no_eligible_sample,
    check_reproducible,
    check_micro_batches,
    check_saving,
    check_updates,
)


def subjects(row: Row, options: Mapping[str, Any] | None = None) -> dict[str, Subject]:
    """A method under test on each toy task that it fits, by the name of the task.

    options: small ones for the toys.
    """
    chosen = dict(options or {})
    return {name: Subject(row, toy, chosen) for name, toy in toys().items() if fits(row, toy, chosen)}


def check_method(method: type[Method], options: Mapping[str, Any] | None = None, gradients: str = "mean") -> list[str]:
    """Run every check on every toy task that a method fits.

    Args:
        method: a class on `Method`, in this package or outside it.
        options: keyword arguments that keep the method small.
        gradients: its default update: "mean" or "gmd".

    Returns:
        The names of the toy tasks that the method was checked on.

    Raises:
        AssertionError: with one line that says which check failed, and on which task.
    """
    row = Row(method, method.__name__, gradients)
    by_task = subjects(row, options)
    assert by_task, f"{method.__name__} fits none of the toy tasks: {', '.join(toys())}."
    for name, subject in by_task.items():
        for check in CHECKS:
            try:
                check(subject)
            except AssertionError as error:
                raise AssertionError(f"{method.__name__} on {name}, {check.__name__}: {error}") from error
    return list(by_task)
