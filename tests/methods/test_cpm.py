"""CPM-Nets as a method: its two turns, what it leaves out, its options, and its accuracy on handwritten digits.

Y4 and Y5 number the reference cases.
"""

import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.testing import assert_close

import anysubset
from anysubset.batches import Batch, Observed
from anysubset.datasets.amputation import remove_at_random
from anysubset.datasets.table import create_dataset
from anysubset.errors import InputError
from anysubset.experiments.train_settings import TrainSettings
from anysubset.methods.cpm import CPM, by_range
from anysubset.methods.method import Step
from anysubset.methods.update import Mean, fill_gradients
from anysubset.models.cpm import read_out, ridge_readout
from anysubset.scenarios import Scenario
from anysubset.system import tensor_file
from anysubset.tables.batching import batch_of as batch_of_table
from anysubset.tables.dataset import TableDataset
from anysubset.tasks.prediction import Prediction, Stream
from anysubset.testing.toys import part
from anysubset.training.optimizers import parameters_by_rate
from anysubset.workflows.trained import open_run

NAMES = ("text", "audio")
PRESENCE: list[Scenario] = [NAMES, ("text",), NAMES, ("audio",), NAMES, NAMES]
DECODERS, LATENTS = Step(number=4), Step(number=5)
TABLES = Path(os.environ.get("ANYSUBSET_TABLES", Path(__file__).parents[3] / "shared" / "data" / "tables"))
RECIPE = Path(__file__).parents[2] / "experiments/recipes/cpm_paper.yaml"


def task_of(classes: tuple[str, ...] = ("no", "yes"), kind: str = "vector") -> Prediction:
    limits = None if classes else (-3.0, 3.0)
    return Prediction(NAMES, {"text": Stream(kind, 3), "audio": Stream(kind, 2)}, classes, limits)


def make(classes: tuple[str, ...] = ("no", "yes"), samples: int = len(PRESENCE), **options: object) -> CPM:
    torch.manual_seed(0)
    method = CPM(task_of(classes), **{"latent": 4, "hidden": 3, "fit_steps": 20, **options})  # type: ignore[arg-type]
    method.begin([f"s{index}" for index in range(samples)])
    return method.double()


def batch_of(target: list[float]) -> Batch:
    generator = torch.Generator().manual_seed(1)
    inputs = {}
    for name, size in (("text", 3), ("audio", 2)):
        having = torch.tensor([index for index, scenario in enumerate(PRESENCE) if name in scenario])
        inputs[name] = Observed(torch.randn(len(having), size, generator=generator, dtype=torch.float64), having)
    kind = torch.float64 if any(value != int(value) or value < 0 for value in target) else torch.int64
    return Batch(inputs, torch.tensor(target, dtype=kind), tuple(f"s{index}" for index in range(len(PRESENCE))))


CLASSES = batch_of([0, 1, 0, 1, 1, 0])
NUMBERS = batch_of([-1.5, 2.0, 0.0, 0.5, -0.5, 1.0])


def trained(batch: Batch, steps: int = 40, **options: object) -> CPM:
    method = make(() if batch is NUMBERS else ("no", "yes"), **options)
    optimizer = torch.optim.Adam(method.parameters(), lr=0.05)
    for number in range(steps):
        optimizer.zero_grad()
        fill_gradients(method, Mean(method), [batch], Step(number=number))
        optimizer.step()
    return method


# ---------------------------------------------------------------------------------------------------- training


def test_decoders_and_latent_vectors_are_trained_in_turn_five_steps_each():
    method = make()
    turns = []
    for number in range(20):
        method.zero_grad()
        fill_gradients(method, Mean(method), [CLASSES], Step(number=number))
        own = {name.partition(".")[0] for name, value in method.named_parameters() if value.grad is not None}
        turns.append(own)
        assert ("classification" in method.objectives(Step(number=number))) == (own == {"latents"})
    assert turns == ([{"network"}] * 5 + [{"latents"}] * 5) * 2


def test_one_adam_for_both_is_the_same_as_one_for_each():
    one, two = make(), make()
    assert two.latents is not None
    together = torch.optim.Adam(
        [{"params": [*one.network.parameters()]}, {"params": [one.latents], "lr": 0.02}], lr=0.1
    )
    separate = (torch.optim.Adam(two.network.parameters(), lr=0.1), torch.optim.Adam([two.latents], lr=0.02))
    for number in range(12):
        for method, optimizer in ((one, together), (two, separate[number // 5 % 2])):
            method.zero_grad()
            fill_gradients(method, Mean(method), [CLASSES], Step(number=number))
            optimizer.step()
    assert all(torch.equal(value, two.state_dict()[name]) for name, value in one.state_dict().items())


def test_the_latent_vectors_can_have_a_rate_of_their_own():
    method = make()
    rates = parameters_by_rate(method, TrainSettings(lr=0.1, rates={"latents": 0.02}))
    assert [(len(parameters), rate) for parameters, rate in rates if parameters] == [(8, 0.1), (1, 0.02)]


def test_the_losses_are_means_of_the_papers_sums():
    method = make(classification=3.0)
    losses = method.losses(CLASSES, LATENTS)
    assert method.latents is not None
    errors = method.network.errors(method.latents, method.network.targets(CLASSES.inputs))
    assert_close(losses["reconstruction"], errors.sum() / 6)
    assert method.objectives(LATENTS)["classification"].weight == 3.0
    # The first sample, of class 0 with the third and the last.
    h = method.latents.detach()
    own, other = h[0] @ (h[2] + h[5]) / 2, h[0] @ (h[1] + h[3] + h[4]) / 3
    expected = torch.clamp(torch.maximum(own, other) - own + (other > own), min=0)
    method.classes[:] = torch.tensor([0, 1, 0, 1, 1, 0])
    alone = method.losses(part(CLASSES, [0]), LATENTS)
    assert_close(alone["classification"], expected)


def test_the_gradient_on_latent_vectors_is_the_same_in_two_micro_batches():
    gradients = []
    for parts in ([CLASSES], [part(CLASSES, [0, 1]), part(CLASSES, [2, 3, 4, 5])]):
        method = make()
        fill_gradients(method, Mean(method), parts, DECODERS)  # Now the classes of all samples are known.
        method.zero_grad()
        fill_gradients(method, Mean(method), parts, LATENTS)
        assert method.latents is not None
        gradients.append(method.latents.grad)
    assert_close(*gradients, rtol=1e-12, atol=1e-14)


def test_a_class_with_one_training_sample_is_refused_in_one_line():
    with pytest.raises(InputError, match="two training samples of each; 1 is of class 'yes'"):
        make().losses(batch_of([0, 1, 0, 0, 0, 0]), DECODERS)
    with pytest.raises(InputError, match="0 are with a negative number"):
        make(()).losses(batch_of([1.5, 2, 0, 0.5, 3, 1]), DECODERS)


def test_samples_with_the_number_0_are_left_out_of_training():
    method = trained(NUMBERS, steps=6)
    start = make(()).latents
    assert method.latents is not None
    assert start is not None
    moved = (method.latents != start).any(dim=1)
    assert moved.tolist() == [True, True, False, True, True, True]
    values = {name: own.values.clone() for name, own in NUMBERS.inputs.items()}
    values["text"][2] = 100.0  # Of the third sample, s2.
    other = {name: Observed(values[name], own.indices) for name, own in NUMBERS.inputs.items()}
    changed = Batch(other, NUMBERS.target, NUMBERS.ids)
    assert method.losses(changed, LATENTS) == method.losses(NUMBERS, LATENTS)


# --------------------------------------------------------------------------------------------------- prediction


def test_a_sample_is_predicted_the_same_alone_and_among_others():
    # Y4, in float32.
    method = trained(CLASSES).float()
    inputs = {name: Observed(own.values.float(), own.indices) for name, own in CLASSES.inputs.items()}
    together = method.predict(inputs)
    batch = Batch(inputs, CLASSES.target, CLASSES.ids)
    for index in range(len(PRESENCE)):
        alone = method.predict(part(batch, [index]).inputs)
        assert_close(alone[0], together[index], rtol=0, atol=1e-6)
    assert torch.equal(method.predict(inputs), together)


def test_training_samples_are_classified_as_they_were_trained():
    method = trained(CLASSES, steps=80, latent=8, fit_steps=60, fit_rate=0.05)
    assert method.predict(CLASSES.inputs).argmax(dim=1).tolist() == CLASSES.target.tolist()


def test_the_sign_of_a_number_is_that_of_the_nearer_class():
    options = {"latent": 8, "fit_steps": 60, "fit_rate": 0.05}
    method, ridge = trained(NUMBERS, 80, **options), trained(NUMBERS, 80, head="ridge", **options)
    predicted, fitted = method.predict(NUMBERS.inputs), ridge.predict(NUMBERS.inputs)
    assert predicted.shape == fitted.shape == (6, 1)
    labelled = NUMBERS.target != 0
    assert torch.equal(predicted[labelled, 0] > 0, NUMBERS.target[labelled] > 0)
    assert ridge.latents is not None
    readout = ridge_readout(ridge.latents[labelled], NUMBERS.target[labelled])
    start = torch.zeros(6, 8, dtype=torch.float64)
    latents = ridge.network.fit(ridge.network.targets(NUMBERS.inputs), start, 60, 0.05)
    assert_close(fitted, read_out(readout, latents), rtol=0, atol=1e-9)
    assert set(method.undefined_metrics) == {"error", "acc7", "acc7_outward", "acc3", "acc5", "mae", "corr"}
    assert not ridge.undefined_metrics
    assert not make().undefined_metrics


def test_prediction_needs_decoders_and_read_out_but_no_latent_vectors():
    method = trained(CLASSES)
    assert {name.partition(".")[0] for name in method.prediction_state()} == {"network", "readout"}
    other = CPM(task_of(), latent=4, hidden=3, fit_steps=20).double()
    other.load_state_dict(method.prediction_state())
    assert torch.equal(other.predict(CLASSES.inputs), method.predict(CLASSES.inputs))


# ------------------------------------------------------------------------------------------------------ options


@pytest.mark.parametrize("option", [{"start": "random"}, {"scale": "range"}], ids=str)
def test_published_behaviour_changes_the_prediction_and_makes_samples_depend_on_each_other(option: dict[str, str]):
    method, published = trained(CLASSES), trained(CLASSES, **option)
    together = published.predict(CLASSES.inputs)
    assert (together - method.predict(CLASSES.inputs)).abs().max() > 1e-3
    alone = published.predict(part(CLASSES, [0]).inputs)
    assert (alone[0] - together[0]).abs().max() > 1e-5


def test_a_modality_is_divided_by_its_range():
    # Mean 2, range 4.
    x = torch.tensor([[0.0, 1.0], [3.0, 4.0]])
    assert by_range(x).tolist() == [[-0.5, -0.25], [0.25, 0.5]]
    assert by_range(torch.ones(2, 2)).tolist() == [[0, 0], [0, 0]]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"head": "mean"}, "Unknown method.head 'mean'"),
        ({"head": "ridge"}, "method.head ridge is for numbers"),
        ({"start": "one"}, "Unknown method.start 'one'"),
        ({"scale": "row"}, "Unknown method.scale 'row'"),
        ({"latent": 0}, "method.latent and method.fit_steps must be at least 1"),
        ({"fit_rate": 0.0}, "method.fit_rate above 0"),
    ],
    ids=str,
)
def test_options_out_of_range_are_refused_in_one_line(options: dict[str, object], message: str):
    with pytest.raises(InputError, match=message) as raised:
        make(**options)
    assert "\n" not in str(raised.value)


def test_the_sign_of_numbers_without_a_metric_of_signs_is_refused():
    numbers = replace(task_of(()), limits=None)
    with pytest.raises(InputError, match="have no metric of signs"):
        CPM(numbers)
    assert not CPM(numbers, head="ridge").undefined_metrics


def test_images_are_refused():
    with pytest.raises(InputError, match="CPM-Nets take vectors or sequences; 'text' is of kind image"):
        CPM(task_of(kind="image"))


# ------------------------------------------------------------------------------------------------- whole runs


def write_digits(path: Path, per_class: int = 8) -> None:
    """Three classes of vectors around their means, and splits."""
    generator = np.random.default_rng(0)
    y = np.repeat(np.arange(3), per_class)
    arrays = {name: generator.normal(size=(len(y), 4)) + 3 * np.eye(3, 4)[y] for name in NAMES}
    split = np.tile(np.array(["train"] * (per_class - 4) + ["val"] * 2 + ["test"] * 2), 3)
    np.savez(path, y=y, split=split, id=np.array([f"d{row}" for row in range(len(y))]), **arrays)


def fit(table: Path, run: Path, **options: object) -> None:
    changes = {
        **{
            "data.name": "table",
            "data.root": str(table),
            "method.latent": 4,
            "method.hidden": 0,
            "train.device": "cpu",
        },
        **{"method.fit_steps": 5, "train.steps": 14, "train.validate_every": 14, "train.checkpoint_every": 3},
    }
    anysubset.fit(RECIPE, run=run, **{**changes, **options})  # type: ignore[arg-type]


def test_a_run_stopped_in_either_turn_and_resumed_ends_with_the_same_bits(tmp_path, stopped_before):
    write_digits(tmp_path / "digits.npz")
    fit(tmp_path / "digits.npz", tmp_path / "whole")
    for number in (4, 8):
        with stopped_before(number), pytest.raises(KeyboardInterrupt):
            fit(tmp_path / "digits.npz", tmp_path / "parts", resume=True)
    fit(tmp_path / "digits.npz", tmp_path / "parts", resume=True)
    for path in ("checkpoints/latest.safetensors", "checkpoints/best.safetensors"):
        (whole, facts), (parts, others) = (tensor_file.load(tmp_path / run / path) for run in ("whole", "parts"))
        assert whole.keys() == parts.keys()
        assert all(torch.equal(value, parts[name]) for name, value in whole.items())
        assert facts == others
    assert "method.latents" not in whole


def test_every_step_takes_all_training_samples_whatever_the_batch_is(tmp_path):
    write_digits(tmp_path / "digits.npz")
    weights = []
    for batch in (4, 64):
        fit(tmp_path / "digits.npz", tmp_path / str(batch), **{"train.batch": batch, "train.steps": 4})
        tensors, facts = tensor_file.load(tmp_path / str(batch) / "checkpoints/latest.safetensors")
        assert facts["experiment"]["train.batch"] == batch
        weights.append(tensors)
    small, large = weights
    assert all(torch.equal(value, large[name]) for name, value in small.items())


def test_an_error_and_a_correlation_are_scored_only_with_the_ridge_head(make_table_experiment, tmp_path):
    metrics = []
    for head in ("sign", "ridge"):
        changes = {"method.head": head, "method.latent": 4, "method.fit_steps": 2, "train.steps": 2}
        experiment = make_table_experiment({"method.name": "cpm", **changes})
        anysubset.fit(experiment, run=tmp_path / head)
        evaluation = anysubset.evaluate(tmp_path / head, rates=[0.3])
        assert evaluation.random
        scores = [*evaluation.scores, *evaluation.random]
        metrics.append({score.metric for score in scores})
    sign, ridge = metrics
    assert {"acc2", "f1", "prediction", "loss"} <= sign
    assert ridge - sign == {"error", "acc7", "acc7_outward", "mae", "corr"}


# ------------------------------------------------------------------------------------------ handwritten digits


def write_handwritten(path: Path, rate: float, seed: int) -> None:
    """2000 digits in six views, 79 % to train on and 20 % to test, stratified; modalities removed from all at a rate.

    The 20 digits for validation have one view only, so that a single scenario is scored.
    """
    with np.load(TABLES / "handwritten.npz") as stored:
        arrays = {name: stored[name] for name in stored}
    ids = [f"d{row}" for row in range(len(arrays["y"]))]
    views = tuple(name for name in arrays if name != "y")
    present = remove_at_random(dict.fromkeys(ids, views), rate, np.random.default_rng(seed))
    split = np.full(len(ids), "train")
    for number in range(10):
        rows = np.random.default_rng([seed, number]).permutation(np.flatnonzero(arrays["y"] == number))
        split[rows[:2]], split[rows[-40:]] = "val", "test"
    present |= {sample: ("mor",) for sample, name in zip(ids, split, strict=True) if name == "val"}
    presence = {f"{view}_present": np.array([view in present[sample] for sample in ids]) for view in views}
    np.savez(path, id=np.array(ids), split=split, **arrays, **presence)


def accuracy(run: Path) -> float:
    """Share of the test digits that are classified rightly, from the views that each one has."""
    trained = open_run(run, device="cpu")
    dataset = create_dataset(trained.experiment.data, trained.experiment.task, signature=trained.signature)
    assert isinstance(dataset, TableDataset)
    dataset.prepare("test")
    batch = batch_of_table(dataset.ready["test"], range(len(dataset.ids("test"))))
    with torch.no_grad():
        return float((trained.method.predict(batch.inputs).argmax(dim=1) == batch.target).double().mean())


@pytest.mark.slow
@pytest.mark.timeout(1200)
@pytest.mark.skipif(not TABLES.is_dir(), reason="the public data are not at hand (docs/tables.md)")
@pytest.mark.parametrize(
    ("rate", "expected"),
    [(0.0, 0.961), (0.5, 0.934)],
)
def test_handwritten_digits_are_recognised_as_well_as_in_the_reference(tmp_path: Path, rate: float, expected: float):
    # Y5
    scores = []
    for seed in (0, 1):
        write_handwritten(tmp_path / f"{seed}.npz", rate, seed)
        changes = {
            "data.name": "table",
            "data.root": str(tmp_path / f"{seed}.npz"),
            "train.device": "cpu",
            "seed": seed,
        }
        anysubset.fit(RECIPE, run=tmp_path / str(seed), **changes)
        scores.append(accuracy(tmp_path / str(seed)))
    assert abs(sum(scores) / 2 - expected) < 0.02
