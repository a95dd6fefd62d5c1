"""Blends: stages of the parts, averages by hand, and what is refused."""

from collections.abc import Iterable, Iterator
from csv import DictReader
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from anysubset import api
from anysubset.batches import Observed
from anysubset.errors import InputError
from anysubset.experiments.files import write_experiment
from anysubset.methods.blend import Blend, average
from anysubset.methods.creation import create_method
from anysubset.methods.method import Step
from anysubset.scenarios import all_scenarios
from anysubset.system import tensor_file
from anysubset.tasks.prediction import Prediction, Stream
from anysubset.tasks.segmentation import Segmentation

NAMES = ("a", "b")
STREAMS = {"a": Stream("vector", 2), "b": Stream("vector", 3)}
CLASSES = Prediction(NAMES, STREAMS, ("no", "yes"))
NUMBER = Prediction(NAMES, STREAMS)
REGIONS = Segmentation(NAMES, {"tumour": (1,)}, (8, 8))


def blend_of(*parts: object, task: Prediction = CLASSES, **options: object) -> Blend:
    torch.manual_seed(0)
    method, _ = create_method("blend", task, {"parts": list(parts), **options} if parts else options)
    assert isinstance(method, Blend)
    return method


def logit(probability: float) -> float:
    return float(torch.tensor(probability, dtype=torch.float64).logit())


# ------------------------------------------------------------------------------------------------------ averages


def test_class_probabilities_are_averaged():
    # (.8, .2) and (.4, .6): (.6, .4), whereas the mean of the logits would give .62.
    logits = [torch.tensor([[0.8, 0.2]]).log(), torch.tensor([[0.4, 0.6]]).log() + 5.0]
    assert_close(average(CLASSES, logits).softmax(dim=1), torch.tensor([[0.6, 0.4]]))


def test_numbers_are_averaged():
    assert average(NUMBER, [torch.tensor([[1.0], [2.0]]), torch.tensor([[4.0], [-2.0]])]).tolist() == [[2.5], [0.0]]


def test_probabilities_of_regions_are_averaged():
    # .9 and .3: .6, so the voxel is inside, although the mean of the logits .9 and .05 would be, too; .9 and .05: .475.
    one, other = torch.tensor([[logit(0.9), logit(0.9)]]), torch.tensor([[logit(0.3), logit(0.05)]])
    assert_close(average(REGIONS, [one, other]).sigmoid(), torch.tensor([[0.6, 0.475]]))
    certain = torch.tensor([[200.0, -200.0]])
    assert_close(average(REGIONS, [certain, certain]), certain)  # No infinity where a probability rounds to 0 or 1.


def test_averages_with_weights_by_hand():
    weights = torch.tensor([0.75, 0.25], dtype=torch.float64)
    # (.8, .2) and (.4, .6): .75 x .8 + .25 x .4 = .7.
    logits = [torch.tensor([[0.8, 0.2]]).log(), torch.tensor([[0.4, 0.6]]).log() + 5.0]
    assert_close(average(CLASSES, logits, weights).softmax(dim=1), torch.tensor([[0.7, 0.3]]))
    assert average(NUMBER, [torch.tensor([[1.0]]), torch.tensor([[5.0]])], weights).tolist() == [[2.0]]
    one, other = torch.tensor([[logit(0.9)]]), torch.tensor([[logit(0.3)]])
    assert_close(average(REGIONS, [one, other], weights).sigmoid(), torch.tensor([[0.75]]))


@pytest.mark.parametrize("task", [CLASSES, NUMBER, REGIONS])
def test_a_single_prediction_is_unchanged(task: Prediction):
    prediction = torch.randn(2, 2, generator=torch.Generator().manual_seed(0))
    assert torch.equal(average(task, [prediction]), prediction)
    assert torch.equal(average(task, [prediction], torch.ones(1)), prediction)


@torch.no_grad()
@pytest.mark.parametrize("scenario", all_scenarios(NAMES))
def test_all_parts_predict_and_in_training_only_the_trained_one(scenario: tuple[str, ...]):
    method = blend_of("sharing", "ensemble", width=4).eval()
    values = {"a": torch.tensor([[1.0, -1.0]]), "b": torch.tensor([[0.5, 2.0, 0.0]])}
    inputs = {name: Observed(values[name], torch.tensor([0])) for name in scenario}
    sharing, ensemble = (method.part(label).predict(inputs) for label in ("sharing", "ensemble"))
    mean = (sharing.softmax(dim=1) + ensemble.softmax(dim=1)) / 2
    assert_close(method.predict(inputs).softmax(dim=1), mean)
    method.enter("ensemble")
    assert torch.equal(method.predict(inputs), ensemble)
    method.complete()
    assert_close(method.predict(inputs).softmax(dim=1), mean)


# -------------------------------------------------------------------------------------------------------- stages


def test_every_part_has_stages_of_its_own_and_an_equal_share():
    method = blend_of("sharing", "mmin", "sharing", width=8)
    assert [(stage.name, round(stage.share, 6)) for stage in method.stages] == [
        ("sharing_1", round(1 / 3, 6)),
        ("mmin_teacher", round(0.25 / 3, 6)),
        ("mmin_student", 0.25),
        ("sharing_2", round(1 / 3, 6)),
    ]
    # A teacher predicts nothing, so its last weights are those that the student starts from.
    assert [stage.keeps_best for stage in method.stages] == [True, False, True, True]
    assert method.objectives(Step(stage="mmin_teacher")) == method.part("mmin").objectives(Step(stage="teacher"))


def test_parts_without_gradients_take_no_share_of_the_steps():
    method = blend_of("linear", "sharing", "boosting", "ensemble", width=4)
    shares = {stage.name: (stage.share, stage.fit_steps) for stage in method.stages if not stage.fit_steps}
    assert shares == {"sharing": (0.5, 0), "ensemble": (0.5, 0)}
    assert [stage.name for stage in method.stages if stage.fit_steps] == ["linear", "boosting"]
    assert all(stage.fit_steps for stage in blend_of("linear", "boosting").stages)


def test_parts_of_one_name_begin_with_other_weights():
    method = blend_of("sharing", "sharing", width=4)
    first, second = (dict(method.part(label).named_parameters()) for label in ("sharing_1", "sharing_2"))
    assert first.keys() == second.keys()
    assert any(not torch.equal(first[name], second[name]) for name in first)


def test_options_are_for_all_parts_that_have_them_or_for_one():
    method = blend_of({"name": "sharing", "width": 8, "cases": "full"}, "ensemble", width=4)
    assert width_of(method.part("sharing").state_dict()) == 8
    assert width_of(method.part("ensemble").state_dict()) == 4
    assert method.part("sharing").draw(torch.Generator()) == (NAMES,)
    assert list(blend_of().parts) == ["sharing", "ensemble"]


def width_of(state: dict[str, Tensor]) -> int:
    """Number of features that the encoder of modality a computes."""
    return next(len(value) for name, value in state.items() if name.endswith("stems.a.3.weight"))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"weights": "best"}, "Unknown method.weights 'best'"),
        ({"parts": []}, "method.parts names one method or more, such as"),
        ({"parts": [3]}, "3 is neither"),
        ({"parts": [{"width": 4}]}, "{'width': 4} is neither"),
        ({"parts": ["smelling"]}, "smelling"),
        ({"parts": ["rfnet"]}, "Method 'rfnet' is for volumes"),
        ({"parts": ["gcnet", "sharing"]}, "Method 'gcnet' predicts whole groups"),
        ({"parts": ["cpm"]}, "Method 'cpm' trains on all samples at once"),
        ({"parts": [{"name": "full", "depth": 3}]}, "depth"),
        ({"parts": "sharing"}, "Option parts of method 'blend' cannot be 'sharing'"),
        ({"gradients": "gmd"}, "[{name: sharing, gradients: gmd}, ensemble]"),
        ({"cases": "all"}, "cases"),
    ],
)
def test_what_is_refused(options: dict[str, object], message: str):
    with pytest.raises(InputError) as caught:
        create_method("blend", CLASSES, options)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


# ------------------------------------------------------------------------------------------------------ training


def fitted(make_table_experiment, folder: Path, name: str, **settings: object) -> Path:
    write_experiment(make_table_experiment({"method.name": name, **settings}), folder / f"{name}.yaml")
    api.fit(folder / f"{name}.yaml", run=folder / name)
    api.evaluate(folder / name, split="test")
    return folder / name


def test_a_blend_of_one_part_is_that_part_to_the_bit(make_table_experiment, tmp_path: Path):
    settings = {"train.steps": 6, "train.validate_every": 1, "train.lr": 1.0}
    alone = fitted(make_table_experiment, tmp_path, "sharing", **settings)
    blend = fitted(make_table_experiment, tmp_path, "blend", **settings, **{"method.parts": ["sharing"]})
    one, facts = tensor_file.load(alone / "checkpoints/best.safetensors")
    other, blend_facts = tensor_file.load(blend / "checkpoints/best.safetensors")
    assert facts["step"] < 6, "The best weights should not be the last ones."
    assert blend_facts["step"] == 6
    assert facts["validation"] == blend_facts["validation"]
    assert {f"parts.sharing.{name}" for name in one} == set(other)
    assert all(torch.equal(value, other[f"parts.sharing.{name}"]) for name, value in one.items())
    assert scores_in(alone) == scores_in(blend)


@pytest.fixture(scope="module")
def vectors(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """90 samples with two vectors, one third each for training, validation and test; some lack b."""
    generator = np.random.default_rng(0)
    y = generator.integers(0, 2, 90)
    arrays = {"a": generator.normal(size=(90, 3)) + y[:, None], "b": generator.normal(size=(90, 2)) - y[:, None]}
    arrays["b"][::4] = np.nan
    path = tmp_path_factory.mktemp("vectors") / "vectors.npz"
    np.savez(path, **arrays, y=y.astype(str), split=np.repeat(["train", "val", "test"], 30))
    return path


def settings_of(vectors: Path, *parts: object, **options: object) -> dict[str, object]:
    method = {"method.name": "blend", "method.parts": list(parts), **options}
    return {"data.name": "table", "data.root": str(vectors), "train.device": "cpu", "train.steps": 8, **method}


def test_a_blend_of_a_classical_model_is_that_model_to_the_bit(vectors: Path, tmp_path: Path):
    alone = {**settings_of(vectors), "method.name": "linear"}
    del alone["method.parts"]
    api.fit(alone, run=tmp_path / "linear")
    api.fit(settings_of(vectors, "linear"), run=tmp_path / "blend")
    one, facts = tensor_file.load(tmp_path / "linear/checkpoints/best.safetensors")
    other, blend_facts = tensor_file.load(tmp_path / "blend/checkpoints/best.safetensors")
    assert facts["step"] < 7, "The best strength should not be the last one."
    assert facts["validation"] == blend_facts["validation"]
    assert {f"parts.linear.{name}" for name in one} == set(other)
    assert all(torch.equal(value, other[f"parts.linear.{name}"]) for name, value in one.items())


def test_classical_models_and_networks_are_blended(vectors: Path, tmp_path: Path):
    parts = ["boosting", "sharing", {"name": "linear", "strength": 1.0}]
    done = api.fit(settings_of(vectors, *parts, **{"method.width": 4}), run=tmp_path / "run")
    assert done.steps == 1 + 8 + 1
    latest = tensor_file.read_facts(tmp_path / "run/checkpoints/latest.safetensors")
    assert latest["stage_steps"] == {"boosting": 1, "sharing": 8, "linear": 1}
    method = api.load(tmp_path / "run", device="cpu")
    assert isinstance(method, Blend)
    inputs = {"a": torch.tensor([[1.0, 0.0, -1.0]])}
    predictions = [method.part(label).predict(inputs).softmax(dim=1) for label in ("boosting", "sharing", "linear")]
    assert_close(method.predict(inputs).softmax(dim=1), torch.stack(predictions).mean(dim=0))


def test_weights_of_the_parts_are_chosen_on_validation_and_used_in_prediction(vectors: Path, tmp_path: Path):
    lines: list[str] = []
    parts = [{"name": "linear", "strength": 1e4}, "linear"]
    done = api.fit(
        settings_of(vectors, *parts, **{"method.weights": "validated"}), run=tmp_path / "run", report=lines.append
    )
    (line,) = [line for line in lines if line.startswith("weights of the parts, chosen on validation: linear_1 ")]
    method = api.load(tmp_path / "run", device="cpu")
    assert isinstance(method, Blend)
    weights = method.weights
    assert weights is not None
    # The first part is hardly fitted, the second one has the best strength.
    assert weights.tolist() == [0.25, 0.75]
    facts = tensor_file.read_facts(tmp_path / "run/checkpoints/best.safetensors")
    strength = facts["choices"]["linear_2 strength"]
    assert facts["choices"] == {"weight of linear_1": 0.25, "weight of linear_2": 0.75, "linear_2 strength": strength}
    assert line.endswith("linear_1 0.25, linear_2 0.75")
    method.enter("linear_2")  # While a part is trained, no weights are chosen.
    assert method.choices() == {"linear_2 strength": strength}
    method.complete()
    inputs = {"a": torch.tensor([[1.0, 0.0, -1.0]])}
    by_part = torch.stack([part.predict(inputs).softmax(dim=1) for part in method.everyone()])
    expected = (weights.view(2, 1, 1) * by_part).sum(dim=0)
    assert_close(method.predict(inputs).softmax(dim=1), expected.float())
    ((_, together),) = method.predict_scenarios(inputs, [("a",)])
    assert torch.equal(together, method.predict(inputs))
    equal = api.fit(settings_of(vectors, *parts), run=tmp_path / "equal")
    assert done.best < equal.best


def test_a_training_with_validated_weights_is_resumed_with_the_same_bits(vectors: Path, tmp_path: Path):
    settings = settings_of(vectors, "sharing", {"name": "linear", "strength": 1.0}, **{"method.weights": "validated"})
    settings |= {"method.width": 4, "train.checkpoint_every": 1}

    def stop(numbers: object, *_: object) -> object:
        yield next(iter(numbers))  # type: ignore[call-overload]
        raise KeyboardInterrupt

    api.fit(settings, run=tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        api.fit(settings, run=tmp_path / "stopped", progress=stop)
    api.fit(settings, run=tmp_path / "stopped", resume=True)
    for file in ("best", "latest"):
        whole, facts = tensor_file.load(tmp_path / f"whole/checkpoints/{file}.safetensors")
        stopped, other_facts = tensor_file.load(tmp_path / f"stopped/checkpoints/{file}.safetensors")
        assert facts == other_facts
        assert whole.keys() == stopped.keys()
        assert all(torch.equal(value, stopped[name]) for name, value in whole.items())


OF_METHOD = ("run", "method", "weights")


def scores_in(run: Path) -> list[dict[str, str]]:
    """Rows of `scores.csv` without what says which method it was."""
    with (run / "scores.csv").open(encoding="utf-8", newline="") as file:
        return [{name: cell for name, cell in row.items() if name not in OF_METHOD} for row in DictReader(file)]


def test_a_run_whose_last_part_is_untrained_predicts_nothing(make_table_experiment, tmp_path: Path):
    write_experiment(make_table_experiment({"method.name": "blend", "train.steps": 4}), tmp_path / "blend.yaml")

    def stop_in_the_second_stage(numbers: Iterable[int], done: int, loss: object, stage: str) -> Iterator[int]:
        if stage == "ensemble":
            raise KeyboardInterrupt
        yield from numbers

    with pytest.raises(KeyboardInterrupt):
        api.fit(tmp_path / "blend.yaml", run=tmp_path / "run", progress=stop_in_the_second_stage)
    with pytest.raises(InputError, match="cannot predict yet, since only its stages up to 'sharing' are trained"):
        api.load(tmp_path / "run")
