"""Classical models, one per modality: equal to scikit-learn's, averages by hand, what is refused, and whole runs."""

import csv
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor
from sklearn.linear_model import LogisticRegression, Ridge
from torch.testing import assert_close

from anysubset import AnySubsetClassifier, AnySubsetRegressor, api, cli
from anysubset.batches import Batch, Observed
from anysubset.errors import InputError
from anysubset.experiments.files import read_run_experiment
from anysubset.experiments.train_settings import TrainSettings
from anysubset.methods.classical import LEAST, ClassicalMethod
from anysubset.methods.creation import create_method
from anysubset.methods.linear import STRENGTHS
from anysubset.methods.method import Step
from anysubset.system import tensor_file
from anysubset.tasks.prediction import Prediction, Stream

STREAMS = {"a": Stream("vector", 3), "b": Stream("vector", 2)}
SAMPLES = 120
SMALL_TREES = {"iterations": 8, "leaves": 6}
OPTIONS: Mapping[str, Mapping[str, object]] = {"linear": {"strength": 2.0}, "boosting": SMALL_TREES}


def task_of(classes: int, error: str = "l1") -> Prediction:
    return Prediction(("a", "b"), STREAMS, tuple(f"c{number}" for number in range(classes)), error=error)


def inputs_of(samples: int = SAMPLES) -> dict[str, Observed]:
    """Modality a of every sample, and b of those with an even number."""
    generator = torch.Generator().manual_seed(1)
    a, b = torch.randn(samples, 3, generator=generator), torch.randn(samples, 2, generator=generator)
    even = torch.arange(0, samples, 2)
    return {"a": Observed(a, torch.arange(samples)), "b": Observed(b[even], even)}


def batch_of(classes: int) -> Batch:
    """A batch whose target depends on both modalities; with `classes` 0 it is a number."""
    inputs = inputs_of()
    number = inputs["a"].values[:, 0] + 0.3 * inputs["a"].values[:, 1].square()
    number[inputs["b"].indices] += inputs["b"].values[:, 0]
    bounds = number.quantile(torch.linspace(0, 1, classes + 1)[1:-1])
    target = torch.bucketize(number, bounds) if classes else number
    return Batch(inputs, target, tuple(f"s{index:03}" for index in range(SAMPLES)))


def fitted(name: str, classes: int, batch: Batch | None = None, error: str = "l1") -> ClassicalMethod:
    method, _ = create_method(name, task_of(classes, error), dict(OPTIONS[name]))
    assert isinstance(method, ClassicalMethod)
    method.fit([batch_of(classes) if batch is None else batch], Step())
    return method


def part_of(batch: Batch, modality: str) -> tuple[np.ndarray, np.ndarray]:
    """Vectors of the samples that have a modality, and their targets."""
    observed = batch.inputs[modality]
    return observed.values.double().numpy(), batch.target[observed.indices].numpy()


# ---------------------------------------------------------------------------------------- as scikit-learn's models


@pytest.mark.parametrize("classes", [2, 4])
@pytest.mark.parametrize("modality", ["a", "b"])
def test_class_probabilities_of_a_modality_are_those_of_scikit_learn(classes: int, modality: str):
    batch = batch_of(classes)
    x, y = part_of(batch, modality)
    linear = LogisticRegression(C=0.5, max_iter=1000).fit(x, y)
    boosted = HistGradientBoostingClassifier(max_iter=8, max_leaf_nodes=6).fit(x, y)
    for name, model in (("linear", linear), ("boosting", boosted)):
        probabilities = fitted(name, classes).predict({modality: torch.from_numpy(x).float()}).softmax(dim=1)
        expected = torch.from_numpy(model.predict_proba(x)).float()
        assert expected.std() > 0.05
        assert_close(probabilities, expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize(("error", "loss"), [("l1", "absolute_error"), ("mse", "squared_error")])
def test_numbers_of_a_modality_are_those_of_scikit_learn(error: str, loss: str):
    batch = batch_of(0)
    x, y = part_of(batch, "b")
    boosted = HistGradientBoostingRegressor(loss=loss, max_iter=8, max_leaf_nodes=6).fit(x, y)
    for name, model in (("linear", Ridge(alpha=2.0).fit(x, y)), ("boosting", boosted)):
        numbers = fitted(name, 0, error=error).predict({"b": torch.from_numpy(x).float()})[:, 0]
        assert_close(numbers.double(), torch.from_numpy(model.predict(x)), rtol=0, atol=1e-6)


def test_ridge_by_hand():
    # x = -1, 0, 1 and y = 0, 1, 5, strength 2: weight sum(x y) / (sum(x^2) + 2) = 5 / 4, bias 2.
    task = Prediction(("a",), {"a": Stream("vector", 1)})
    method, _ = create_method("linear", task, {"strength": 2.0})
    x = torch.tensor([[-1.0], [0.0], [1.0]])
    method.fit([Batch({"a": Observed(x, torch.arange(3))}, torch.tensor([0.0, 1.0, 5.0]), ("p", "q", "r"))], Step())
    assert_close(method.predict({"a": x})[:, 0], torch.tensor([0.75, 2.0, 3.25]))


# ------------------------------------------------------------------------------------------- samples and classes


@pytest.mark.parametrize("name", OPTIONS)
@pytest.mark.parametrize("classes", [0, 3])
def test_the_prediction_is_the_mean_over_the_present_modalities(name: str, classes: int):
    method, inputs = fitted(name, classes), inputs_of(4)
    a, b = (method.predict({"a": inputs["a"].values}), method.predict({"b": inputs["b"].values}))
    both = method.predict(inputs)
    if classes:
        a, b, both = a.softmax(dim=1), b.softmax(dim=1), both.softmax(dim=1)
    assert_close(both[0], (a[0] + b[0]) / 2)
    assert_close(both[1], a[1])  # Lacks b.
    together = dict(method.predict_scenarios({"a": inputs["a"].values}, [("a",)]))
    assert torch.equal(together["a",], method.predict({"a": inputs["a"].values}))


@pytest.mark.parametrize("name", OPTIONS)
@pytest.mark.parametrize("classes", [0, 3])
def test_parts_and_order_of_the_samples_do_not_change_a_bit(name: str, classes: int):
    batch = batch_of(classes)
    order = torch.randperm(SAMPLES, generator=torch.Generator().manual_seed(2))
    parts = []
    for indices in order.split(50):
        rows = indices[indices % 2 == 0]
        inputs = {
            "a": Observed(batch.inputs["a"].values[indices], torch.arange(len(indices))),
            "b": Observed(batch.inputs["b"].values[rows // 2], (indices % 2 == 0).nonzero()[:, 0]),
        }
        parts.append(Batch(inputs, batch.target[indices], tuple(batch.ids[index] for index in indices.tolist())))
    whole, parted = fitted(name, classes), fitted(name, classes)
    parted.fit(parts, Step())
    assert len(parts) == 3
    assert all(torch.equal(value, parted.state_dict()[key]) for key, value in whole.state_dict().items())


@pytest.mark.parametrize("name", OPTIONS)
@pytest.mark.parametrize("present", [(0, 2), (1,)])
def test_a_class_without_a_sample_of_the_modality_has_the_least_probability(name: str, present: tuple[int, ...]):
    batch = batch_of(3)
    # Samples without b have any class.
    target = batch.target.clone()
    rows = batch.inputs["b"].indices
    target[rows] = torch.tensor(present)[torch.arange(len(rows)) % len(present)]
    method = fitted(name, 3, Batch(batch.inputs, target, batch.ids))
    outputs = method.predict({"b": batch.inputs["b"].values})
    absent = [number for number in range(3) if number not in present]
    assert_close(outputs[:, absent].exp(), torch.full((len(rows), len(absent)), LEAST))
    assert_close(outputs[:, list(present)].exp().sum(dim=1), torch.ones(len(rows)))
    # Half the probability that a has for it: the loss stays finite.
    assert method.predict(batch.inputs)[rows].isfinite().all()


@pytest.mark.parametrize("name", OPTIONS)
def test_a_modality_without_samples_says_nothing(name: str):
    batch = batch_of(3)
    method = fitted(name, 3, Batch({"a": batch.inputs["a"]}, batch.target, batch.ids))
    assert_close(method.predict({"b": torch.randn(2, 2)}).exp(), torch.full((2, 3), 1 / 3))


# --------------------------------------------------------------------------------------------------- refusals


@pytest.mark.parametrize("name", OPTIONS)
@pytest.mark.parametrize(
    ("kind", "hint"),
    [
        ("sequence", "average it over time first, or choose another method"),
        ("image", "flatten it into columns first, or choose another method"),
    ],
)
def test_other_inputs_than_vectors_are_refused(name: str, kind: str, hint: str):
    task = Prediction(("a", "b"), {"a": Stream("vector", 3), "b": Stream(kind, 2)}, ("no", "yes"))
    with pytest.raises(InputError) as caught:
        create_method(name, task, {})
    assert str(caught.value) == f"{name} is for vectors; 'b' is of kind {kind}; {hint}."


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("linear", {"strength": 0.0}, "method.strength of the L2 penalty must be above 0, not 0.0."),
        ("boosting", {"iterations": 0}, "method.iterations must be at least 1, not 0."),
        ("boosting", {"leaves": 1}, "method.leaves must be at least 2, not 1."),
        ("boosting", {"learning_rate": -0.1}, "method.learning_rate must be above 0, not -0.1."),
        ("boosting", {"width": 8}, "Unknown option of method 'boosting' 'width'"),
        ("linear", {"gradients": "gmd"}, "Linear shares no parameters between the modalities"),
    ],
)
def test_options_out_of_range_are_refused(name: str, options: dict[str, object], message: str):
    with pytest.raises(InputError) as caught:
        create_method(name, task_of(2), options)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


# -------------------------------------------------------------------------------------------------- whole runs


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """150 samples of three classes, 90 to train on; every third one lacks b, sample 1 lacks a."""
    generator = np.random.default_rng(0)
    y = generator.integers(0, 3, 150)
    a = generator.normal(size=(150, 60))
    b = generator.normal(size=(150, 2)) - y[:, None]
    a[:, 0] += 2 * y
    a[1], b[::3] = np.nan, np.nan
    path = tmp_path_factory.mktemp("vectors") / "vectors.npz"
    split = np.array(["train"] * 90 + ["val"] * 30 + ["test"] * 30)
    np.savez(path, a=a, b=b, y=np.array(["low", "mid", "high"])[y], split=split)
    return path


def settings_of(table: Path, name: str) -> dict[str, object]:
    options = {} if name == "linear" else SMALL_TREES
    own = {f"method.{option}": value for option, value in options.items()}
    return {"data.name": "table", "data.root": str(table), "method.name": name, "train.device": "cpu", **own}


@pytest.mark.parametrize(("name", "steps"), [("linear", len(STRENGTHS)), ("boosting", 1)])
def test_fit_evaluate_predict_and_resume(table: Path, tmp_path: Path, name: str, steps: int):
    lines: list[str] = []
    settings = settings_of(table, name)
    done = api.fit(settings, run=tmp_path / "run", report=lines.append)
    assert done.steps == steps
    assert f"{name} takes all 90 training samples in every step" in lines
    # The settings stay those of the user, so that a sweep over data of several sizes has one `train.batch`.
    assert read_run_experiment(tmp_path / "run").train.batch == TrainSettings().batch
    assert lines[-1].startswith(f"{tmp_path / 'run'}: {steps} step{'s' if steps > 1 else ''}; validation loss")
    scores = api.evaluate(tmp_path / "run", split="test").scores
    assert np.mean([score.value for score in scores if score.metric == "correct"]) > 0.5
    (path,) = api.predict(tmp_path / "run", table)
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 150
    assert [row["used"] for row in rows[:3]] == ["a", "b", "a+b"]
    assert sum(float(rows[1][f"probability_{name}"]) for name in ("low", "mid", "high")) == pytest.approx(1, abs=1e-6)

    def stop(numbers: object, *_: object) -> object:
        yield next(iter(numbers))  # type: ignore[call-overload]
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        api.fit({**settings, "train.checkpoint_every": 1}, run=tmp_path / "stopped", progress=stop)
    api.fit({**settings, "train.checkpoint_every": 1}, run=tmp_path / "stopped", resume=True)
    for file in ("best", "latest"):
        whole, _ = tensor_file.load(tmp_path / f"run/checkpoints/{file}.safetensors")
        stopped, _ = tensor_file.load(tmp_path / f"stopped/checkpoints/{file}.safetensors")
        assert whole.keys() == stopped.keys()
        assert all(torch.equal(value, stopped[key]) for key, value in whole.items())


@pytest.mark.parametrize("name", ["linear", "boosting"])
def test_what_stands_in_place_of_missing_vectors_changes_no_bit(table: Path, tmp_path: Path, name: str):
    with np.load(table) as stored:
        arrays = {key: stored[key] for key in stored}
    present = {f"{key}_present": np.isfinite(arrays[key]).all(axis=1) for key in ("a", "b")}
    fitted_tensors = []
    for filler in (0.0, 1e6):
        filled = {key: np.where(np.isnan(arrays[key]), filler, arrays[key]) for key in ("a", "b")}
        np.savez(tmp_path / f"{filler}.npz", **{**arrays, **filled, **present})
        api.fit(settings_of(tmp_path / f"{filler}.npz", name), run=tmp_path / f"run_{filler}")
        fitted_tensors.append(tensor_file.load(tmp_path / f"run_{filler}/checkpoints/best.safetensors")[0])
    zeros, poisoned = fitted_tensors
    assert zeros.keys() == poisoned.keys()
    assert all(torch.equal(value, poisoned[key]) for key, value in zeros.items())


def test_validation_selects_the_strength(table: Path, tmp_path: Path):
    by_strength = {}
    for strength in STRENGTHS:
        settings = {**settings_of(table, "linear"), "method.strength": strength}
        by_strength[strength] = api.fit(settings, run=tmp_path / str(strength)).best
    chosen = api.fit(settings_of(table, "linear"), run=tmp_path / "chosen")
    best = min(STRENGTHS, key=lambda strength: by_strength[strength])
    assert best not in (STRENGTHS[0], STRENGTHS[-1])
    assert STRENGTHS[chosen.best_step - 1] == best
    facts = tensor_file.read_facts(tmp_path / "chosen/checkpoints/best.safetensors")
    assert facts["choices"] == {"strength": best}
    assert chosen.best == pytest.approx(by_strength[best])
    last = api.fit({**settings_of(table, "linear"), "train.select": "last"}, run=tmp_path / "last")
    assert last.best == by_strength[1.0]  # scikit-learn's default.


def test_settings_of_gradients_are_refused_for_the_stage(table: Path, tmp_path: Path):
    settings = {**settings_of(table, "boosting"), "train.stages": {"train": {"lr": 0.1, "select": "last"}}}
    with pytest.raises(InputError, match=r"train\.stages\.train: this stage has no gradients .* no use for lr: leave"):
        api.fit(settings, run=tmp_path / "run")
    assert not (tmp_path / "run/experiment.yaml").exists()


def test_a_budget_of_operations_does_not_limit_what_takes_no_gradients(table: Path, tmp_path: Path):
    done = api.fit({**settings_of(table, "boosting"), "train.flops": 1.0}, run=tmp_path / "run")
    assert done.steps == 1
    assert '"flops": [0]' in (tmp_path / "run/cost.json").read_text()


def test_classical_models_are_compared(table: Path, tmp_path: Path, capsys: pytest.CaptureFixture):
    for name in OPTIONS:
        api.fit(settings_of(table, name), run=tmp_path / name)
        api.evaluate(tmp_path / name)
    assert cli.main(["compare", str(tmp_path)]) == 0
    out = capsys.readouterr().out
    assert "linear" in out
    assert "boosting" in out


@pytest.mark.parametrize("name", OPTIONS)
def test_estimators_fit_them(name: str):
    inputs = inputs_of(60)
    x = {modality: (observed.values.numpy(), observed.indices.numpy()) for modality, observed in inputs.items()}
    y = (inputs["a"].values[:, 0] > 0).numpy()
    classifier = AnySubsetClassifier(method=name, random_state=0, device="cpu").fit(x, y)
    assert classifier.score(x, y) > 0.8
    assert set(classifier.scenario_scores(x, y)) == {"a", "b", "a+b"}
    number = inputs["a"].values[:, 0].numpy()
    assert AnySubsetRegressor(method=name, random_state=0, device="cpu").fit(x, number).score(x, number) > 0.5


def test_without_validation_an_estimator_keeps_the_default_strength():
    inputs = inputs_of(60)
    x, y = inputs["a"].values.numpy(), (inputs["a"].values[:, 0] > 0).numpy()
    model = AnySubsetClassifier(method="linear", validation_fraction=0, device="cpu").fit(x, y)
    scaled = (x - x.mean(axis=0)) / x.std(axis=0)
    expected = LogisticRegression(C=1.0, max_iter=1000).fit(scaled, y).predict_proba(scaled)
    np.testing.assert_allclose(model.predict_proba(x), expected, atol=1e-5)
