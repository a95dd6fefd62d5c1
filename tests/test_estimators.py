"""The estimators, by scikit-learn's own checks and on data whose predictions are known."""

# ruff: noqa: N803, N806 (X is scikit-learn's name)

import copy
import pickle
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy.sparse import csr_matrix
from sklearn import config_context
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import accuracy_score, balanced_accuracy_score, make_scorer, r2_score, roc_auc_score
from sklearn.model_selection import GridSearchCV, GroupKFold, cross_validate
from sklearn.utils.estimator_checks import parametrize_with_checks
from torch.testing import assert_close

from anysubset import AnySubsetClassifier, AnySubsetRegressor
from anysubset.batches import Observed
from anysubset.datasets.dataset import fingerprint
from anysubset.errors import DataWarning, InputError
from anysubset.estimators import base
from anysubset.tables.block import Block
from anysubset.tables.nan_cells import column_means, with_cells_filled
from anysubset.tables.splitting import hold_out
from anysubset.tasks.prediction import Prediction, Stream

# The methods on the network of the task; tests/methods/test_contract.py asks the same of all.
ON_TASK_NETWORK = ("gmd", "sharing", "dropout", "full", "ensemble")

SMALL = {
    "steps": 30,
    "width": 16,
    "layers": 1,
    "dropout": 0.0,
    "lr": 2e-2,
    "batch": 32,
    "device": "cpu",
    "random_state": 0,
}
CHECKED = {**SMALL, "steps": 20, "width": 8, "lr": 3e-2, "batch": 64, "random_state": None}  # scikit-learn sets it.
GROUPS = {"blood": [0, 1, 2], "scan": slice(3, 5)}
N = 60


@parametrize_with_checks(
    [
        AnySubsetClassifier(**CHECKED),
        AnySubsetRegressor(**CHECKED),
    ],
    # check_array_api_input skips itself where SCIPY_ARRAY_API is not set.
    expected_failed_checks=lambda estimator: {
        "check_sample_weight_equivalence_on_dense_data": "a sample of weight 2 is in fewer batches than two samples are"
    },
)
def test_the_checks_of_scikit_learn(estimator: Any, check: Callable[[Any], None]):
    check(estimator)


# ---------------------------------------------------------------------------------------------------- the data


def separable(samples: int = N) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Every modality shows the class, `ill` or `well`, in its first feature: 2 or -2, and noise."""
    generator = np.random.default_rng(0)
    sign = np.where(np.arange(samples) % 2 == 0, 2.0, -2.0)
    blood, scan = generator.normal(size=(samples, 3)) * 0.3, generator.normal(size=(samples, 2)) * 0.3
    blood[:, 0] += sign
    scan[:, 0] += sign
    return {"blood": blood, "scan": scan}, np.where(sign > 0, "ill", "well")


def with_missing_modalities(samples: int = N) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Samples 0, 3, 6, .. lack blood, 1, 4, 7, .. scan: rows of NaN."""
    X, y = separable(samples)
    X["blood"][0::3] = np.nan
    X["scan"][1::3] = np.nan
    return X, y


def side_by_side(X: dict[str, np.ndarray]) -> np.ndarray:
    return np.concatenate([X["blood"], X["scan"]], axis=1)


@pytest.fixture(scope="module")
def classifier() -> AnySubsetClassifier:
    """Trained on an incomplete dict. Not to be changed."""
    return AnySubsetClassifier(**SMALL).fit(*with_missing_modalities())


@pytest.fixture(scope="module")
def grouped() -> AnySubsetClassifier:
    """Trained on the same samples in one array. Not to be changed."""
    X, y = with_missing_modalities()
    return AnySubsetClassifier(modalities=GROUPS, **SMALL).fit(side_by_side(X), y)


def cheap(**parameters: Any) -> AnySubsetClassifier:
    """A classifier without steps of gradients."""
    return AnySubsetClassifier(method="linear", options={"strength": 1.0}, device="cpu", random_state=0, **parameters)


def same_weights(one: Any, other: Any) -> bool:
    return one.weights_.keys() == other.weights_.keys() and all(
        torch.equal(weight, other.weights_[name]) for name, weight in one.weights_.items()
    )


# ------------------------------------------------------------------------------------- learning and prediction


def test_every_scenario_of_separable_data_is_learned_from_incomplete_samples(classifier: AnySubsetClassifier):
    assert list(classifier.classes_) == ["ill", "well"]
    assert classifier.modalities_ == ("blood", "scan")
    assert not hasattr(classifier, "n_features_in_")
    X, y = separable()
    assert classifier.scenario_scores(X, y) == {"blood": 1.0, "scan": 1.0, "blood+scan": 1.0}
    # Samples that lack a modality are scored in the scenarios that are left to them: 40 of 60 have blood.
    X["scan"][:] = np.nan
    assert classifier.scenario_scores(X, y) == {"blood": 1.0}
    assert classifier.score(X, y) == 1.0


@pytest.mark.parametrize("method", ON_TASK_NETWORK)
def test_every_method_predicts_without_a_modality(method: str):
    X, y = separable()
    model = AnySubsetClassifier(method=method, **SMALL).fit(X, y)
    assert model.predict_proba({"scan": X["scan"]}).shape == (N, 2)
    assert model.score(X, y) == 1.0


def test_regression_learns_targets_in_any_unit():
    X, _ = separable()
    y = 1000 * X["blood"][:, 0] + 1e5
    model = AnySubsetRegressor(**SMALL).fit(X, y)
    assert abs(model.predict(X).mean() - 1e5) < 500
    assert model.score(X, y) > 0.9
    assert model.scenario_scores(X, y)["blood"] > 0.9
    # By hand: intervals of 0.8 reach as far as the ceil(7 * 0.8) = 6th of the 6 distances of validation.
    intervals, reach = model.predict_set(X, 0.8), model.conformal_["blood+scan"]["scores"][5] * model.deviation_
    np.testing.assert_allclose(intervals, model.predict(X)[:, None] + [[-reach, reach]])


def test_a_constant_target_is_predicted():
    X, y = separable()[0], np.full(N, 7.0)
    assert AnySubsetRegressor(**SMALL).fit(X, y).predict(X) == pytest.approx(y, abs=0.5)


def test_a_scenario_is_scored_on_the_samples_that_have_all_its_modalities(classifier: AnySubsetClassifier):
    X, y = with_missing_modalities()
    y = np.roll(y, 1)  # Half wrong, so that each scenario has a score of its own.
    y[:9] = "ill"
    scores = classifier.scenario_scores(X, y)
    have = {name: ~np.isnan(X[name]).all(axis=1) for name in X}
    for names in (("blood",), ("scan",), ("blood", "scan")):
        eligible = np.logical_and.reduce([have[name] for name in names])
        present = {name: X[name][eligible] for name in names}
        assert scores["+".join(names)] == accuracy_score(y[eligible], classifier.predict(present))
    assert len(set(scores.values())) > 1


def test_r2_needs_two_samples():
    X, _ = separable()
    y = X["blood"][:, 0]
    model = AnySubsetRegressor(**SMALL).fit(X, y)
    X["scan"][1:] = np.nan
    scores = model.scenario_scores(X, y)
    assert list(scores) == ["blood"]
    assert scores["blood"] == pytest.approx(r2_score(y, model.predict({"blood": X["blood"]})))


@pytest.fixture(scope="module")
def unequal() -> tuple[AnySubsetClassifier, dict[str, np.ndarray], np.ndarray]:
    """A classifier, and samples whose scan says nothing. Not to be changed."""
    X, y = separable()
    y = np.where(np.random.default_rng(2).random(N) < 0.2, "ill", y)
    X["scan"] = np.random.default_rng(3).normal(size=(N, 2))
    return cheap().fit(X, y), X, y


def test_scenarios_are_scored_by_any_scorer(unequal: tuple[AnySubsetClassifier, dict[str, np.ndarray], np.ndarray]):
    model, X, y = unequal
    X = {"blood": np.where(np.arange(N)[:, None] % 3 == 0, np.nan, X["blood"]), "scan": X["scan"]}
    have = np.arange(N) % 3 > 0
    weight = np.arange(1.0, N + 1)
    scores = model.scenario_scores(X, y, scoring="roc_auc", sample_weight=weight)
    for names, rows in (("blood", have), ("scan", np.full(N, True)), ("blood+scan", have)):
        probabilities = model.predict_proba({name: X[name][rows] for name in names.split("+")})[:, 1]
        expected = roc_auc_score(y[rows] == "well", probabilities, sample_weight=weight[rows])
        assert scores[names] == pytest.approx(expected)
    balanced = balanced_accuracy_score(y, model.predict({"scan": X["scan"]}))
    assert model.scenario_scores(X, y, scoring="balanced_accuracy")["scan"] == balanced

    def share_of_ill(estimator: Any, X: Any, y: Any) -> float:
        return float((estimator.predict(X) == "ill").mean())

    shares = model.scenario_scores(X, y, scoring=share_of_ill)
    assert shares["scan"] == (model.predict({"scan": X["scan"]}) == "ill").mean()
    # Average precision is for the second class.
    precision = model.scenario_scores(
        X, y == "well", scoring=make_scorer(mean_of_second, response_method="predict_proba")
    )
    assert precision["scan"] == pytest.approx(model.predict_proba({"scan": X["scan"]})[:, 1].mean())


def mean_of_second(target: np.ndarray, probabilities: np.ndarray) -> float:
    return float(probabilities.mean()) if probabilities.ndim == 1 else float(probabilities[:, 1].mean())


def test_scenarios_without_a_defined_score_are_left_out(
    unequal: tuple[AnySubsetClassifier, dict[str, np.ndarray], np.ndarray],
):
    model, X, y = unequal
    X = {"blood": np.where(y[:, None] == "ill", np.nan, X["blood"]), "scan": X["scan"]}
    assert list(model.scenario_scores(X, y, scoring="roc_auc")) == ["scan"]
    with pytest.raises(InputError, match=r"Unknown scorer 'roc_acu'\. Did you mean 'roc_auc'"):
        model.scenario_scores(X, y, scoring="roc_acu")
    with pytest.raises(InputError, match="scoring is the name of a scorer of scikit-learn, a callable or None, not 3"):
        model.scenario_scores(X, y, scoring=3)


def test_importances_are_shapley_values_of_the_scores(
    unequal: tuple[AnySubsetClassifier, dict[str, np.ndarray], np.ndarray],
):
    model, X, y = unequal
    scores = model.scenario_scores(X, y)
    none = max((y == "ill").mean(), (y == "well").mean())
    # By hand, for two modalities: half of the gain of blood alone and half of that beside scan.
    blood = ((scores["blood"] - none) + (scores["blood+scan"] - scores["scan"])) / 2
    worth = model.modality_importances(X, y, resamples=200)
    assert worth["blood"].value == pytest.approx(blood)
    assert worth["blood"].value + worth["scan"].value == pytest.approx(scores["blood+scan"] - none)
    assert worth["blood"].low < blood < worth["blood"].high
    assert worth["scan"].high < worth["blood"].low
    assert worth == model.modality_importances(X, y, resamples=200)
    # Only complete samples count.
    padded = {name: np.concatenate([x, np.full_like(x, np.nan) if name == "scan" else x]) for name, x in X.items()}
    assert model.modality_importances(padded, np.r_[y, y[::-1]], resamples=1)["blood"].value == pytest.approx(blood)


def test_importances_of_numbers_begin_with_the_mean_target_and_draw_whole_groups():
    X, _ = separable()
    y = X["blood"][:, 0] + 3
    model = AnySubsetRegressor(method="linear", validation_fraction=0, device="cpu").fit(X, y)
    worth = model.modality_importances(X, y, groups=np.arange(N) // 30, resamples=20)
    # R2 of the mean target is 0.
    total = model.scenario_scores(X, y)["blood+scan"]
    assert worth["blood"].value + worth["scan"].value == pytest.approx(total)
    # Of two groups there are three different draws.
    drawn = {
        model.modality_importances(X, y, groups=np.arange(N) // 30, resamples=1, random_state=seed)["blood"].low
        for seed in range(12)
    }
    assert len(drawn) == 3


def test_importances_need_complete_samples_and_defined_scores(
    unequal: tuple[AnySubsetClassifier, dict[str, np.ndarray], np.ndarray],
):
    model, X, y = unequal
    with pytest.raises(InputError, match="No sample has all of blood, scan, on which scenarios are compared"):
        model.modality_importances({"blood": X["blood"]}, y)
    ill = y == "ill"
    with pytest.raises(InputError, match="The score of a scenario is not defined for these samples"):
        model.modality_importances({name: x[ill] for name, x in X.items()}, y[ill], scoring="roc_auc")
    with pytest.raises(InputError, match=r"Give at least 1 resample and a confidence between 0 and 1, not 0, 0\.95"):
        model.modality_importances(X, y, resamples=0)


def test_a_left_out_modality_equals_one_whose_rows_are_nan(classifier: AnySubsetClassifier):
    X, _ = separable()
    alone = classifier.predict_proba({"scan": X["scan"]})
    np.testing.assert_array_equal(
        alone, classifier.predict_proba({"blood": np.full_like(X["blood"], np.nan), "scan": X["scan"]})
    )
    assert abs(alone - classifier.predict_proba(X)).max() > 1e-6
    assert alone.sum(axis=1) == pytest.approx(1)
    np.testing.assert_array_equal(classifier.classes_[alone.argmax(axis=1)], classifier.predict({"scan": X["scan"]}))


def test_all_forms_of_input_train_the_same_weights(classifier: AnySubsetClassifier, grouped: AnySubsetClassifier):
    X, y = with_missing_modalities()
    assert same_weights(classifier, grouped)
    placed = {name: (x[~np.isnan(x).all(axis=1)], np.flatnonzero(~np.isnan(x).all(axis=1))) for name, x in X.items()}
    assert 0 < len(placed["blood"][1]) < N
    assert same_weights(classifier, AnySubsetClassifier(**SMALL).fit(placed, y))
    listed = {name: x.tolist() for name, x in X.items()}
    assert same_weights(classifier, AnySubsetClassifier(**SMALL).fit(listed, y))
    expected = classifier.predict_proba(X)
    np.testing.assert_array_equal(expected, classifier.predict_proba(placed))
    np.testing.assert_array_equal(expected, grouped.predict_proba(side_by_side(X)))
    np.testing.assert_array_equal(expected, grouped.predict_proba(X))


def test_values_of_masked_samples_have_no_effect(classifier: AnySubsetClassifier):
    X, y = with_missing_modalities()
    for garbage in (np.inf, 1e300, -7.0):
        poisoned = {
            name: np.ma.masked_array(np.where(np.isnan(x), garbage, x), mask=np.isnan(x)) for name, x in X.items()
        }
        assert np.ma.getdata(poisoned["blood"])[0, 0] == garbage
        model = AnySubsetClassifier(**SMALL).fit(poisoned, y)
        assert same_weights(classifier, model)
        np.testing.assert_array_equal(classifier.predict_proba(X), model.predict_proba(poisoned))
    wide = np.ma.concatenate([poisoned["blood"], poisoned["scan"]], axis=1)
    assert same_weights(classifier, AnySubsetClassifier(modalities=GROUPS, **SMALL).fit(wide, y))


def test_steps_of_nan_are_padding_and_images_are_accepted():
    generator = np.random.default_rng(1)
    sign = np.where(np.arange(24) % 2 == 0, 1.0, -1.0)
    X = {
        "audio": generator.normal(size=(24, 4, 2)) + sign[:, None, None],
        "frame": generator.normal(size=(24, 1, 5, 5)) + sign[:, None, None, None],
    }
    X["audio"][::2, 2:] = np.nan
    X["frame"][5] = np.nan
    model = AnySubsetClassifier(**SMALL).fit(X, sign)
    assert {name: stream.kind for name, stream in model.task_.streams.items()} == {
        "audio": "sequence",
        "frame": "image",
    }
    padded = {**X, "audio": np.pad(X["audio"], ((0, 0), (0, 3), (0, 0)), constant_values=np.nan)}
    np.testing.assert_allclose(model.predict_proba(padded), model.predict_proba(X), rtol=1e-12)
    sequences = AnySubsetClassifier(**SMALL).fit({"audio": X["audio"]}, sign)
    assert sequences.task_.streams["audio"].kind == "sequence"
    assert "network.backbone.layers.0.attention.query.weight" in sequences.weights_
    assert sequences.predict({"audio": X["audio"][:3, :1]}).shape == (3,)


# --------------------------------------------------------------------------------- the interface of scikit-learn


def test_a_clone_has_the_same_parameters_and_learns_the_same(classifier: AnySubsetClassifier):
    copied = clone(classifier)
    assert copied.get_params() == classifier.get_params()
    with pytest.raises(NotFittedError):
        copied.predict(with_missing_modalities()[0])
    assert same_weights(classifier, copied.fit(*with_missing_modalities()))
    assert not same_weights(classifier, copied.set_params(random_state=1).fit(*with_missing_modalities()))
    with pytest.raises(ValueError, match="Invalid parameter 'depth'"):
        copied.set_params(depth=3)


def test_a_trained_estimator_can_be_pickled_and_copied(classifier: AnySubsetClassifier):
    X, _ = with_missing_modalities()
    for twin in (pickle.loads(pickle.dumps(classifier)), copy.deepcopy(classifier)):
        np.testing.assert_array_equal(twin.predict_proba(X), classifier.predict_proba(X))


def test_setting_a_parameter_does_not_change_a_trained_estimator(classifier: AnySubsetClassifier):
    X, _ = with_missing_modalities()
    twin = copy.deepcopy(classifier).set_params(method="ensemble", width=8)
    np.testing.assert_array_equal(twin.predict_proba(X), classifier.predict_proba(X))


def test_options_of_the_method_are_set_by_name():
    X, y = with_missing_modalities()
    model = AnySubsetClassifier(method="linear", options={"strength": np.float64(2.0)}, device="cpu").fit(X, y)
    assert model.experiment_.method == {"name": "linear", "strength": 2.0}
    assert isinstance(model.experiment_.method["strength"], float)
    same = {name: value for name, value in SMALL.items() if name != "width"}
    by_option = AnySubsetClassifier(options={"width": 16}, **same).fit(X, y)
    assert same_weights(by_option, AnySubsetClassifier(**SMALL).fit(X, y))
    assert clone(by_option).options == {"width": 16}


def test_unknown_options_are_refused_before_the_data_are_read():
    with pytest.raises(InputError, match=r"^Unknown option of method 'linear' 'stength'\. Did you mean 'strength'"):
        AnySubsetClassifier(method="linear", options={"stength": 1.0}).fit(object(), object())


def test_grid_search_works_on_an_array():
    X, y = with_missing_modalities()
    search = GridSearchCV(
        AnySubsetClassifier(modalities=GROUPS, **{**SMALL, "steps": 10}),
        {"method": ["gmd", "ensemble"], "width": [8, np.int64(16)]},
        cv=2,
        error_score="raise",
    )
    search.fit(side_by_side(X), y)
    assert len(search.cv_results_["params"]) == 4
    assert search.best_score_ > 0.9
    assert search.best_estimator_.n_features_in_ == 5


def test_a_second_training_replaces_the_first():
    X, y = with_missing_modalities()
    model = AnySubsetClassifier(**{**SMALL, "steps": 2}).fit(separable()[0]["blood"], y)
    assert model.modalities_ == ("X",)
    assert model.n_features_in_ == 3
    model.fit(X, y)
    assert model.modalities_ == ("blood", "scan")
    assert not hasattr(model, "n_features_in_")


def test_after_a_refused_training_the_estimator_is_not_fitted(classifier: AnySubsetClassifier):
    X, y = separable()
    for model in (AnySubsetClassifier(**SMALL), copy.deepcopy(classifier)):
        with pytest.raises(InputError, match="blood has 1 infinite values"):
            model.fit({**X, "blood": spoiled(np.inf)}, y)
        with pytest.raises(NotFittedError):
            model.predict(X)


def test_training_changes_no_global_random_state_and_leaves_no_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    seen = []
    inside = base.train
    monkeypatch.setattr(
        base, "train", lambda *args, **more: (seen.append(list(tmp_path.iterdir())), inside(*args, **more))[1]
    )
    before, numpys = torch.get_rng_state(), np.random.get_state()[1].copy()  # noqa: NPY002
    model = AnySubsetClassifier(**{**SMALL, "steps": 2}).fit(*with_missing_modalities())
    model.predict(with_missing_modalities()[0])
    assert_close(torch.get_rng_state(), before)
    np.testing.assert_array_equal(np.random.get_state()[1], numpys)  # noqa: NPY002
    assert len(seen[0]) == 1
    assert list(tmp_path.iterdir()) == []


# ------------------------------------------------------------------------------------------------- validation


def tiny(target: list[int] | list[float]) -> tuple[tuple[str, ...], torch.Tensor]:
    """Ids and targets."""
    numbers = torch.tensor(target, dtype=torch.float32 if isinstance(target[0], float) else torch.int64)
    return tuple(map(str, range(len(target)))), numbers


def test_training_ends_when_validation_stops_to_improve(capsys: pytest.CaptureFixture[str]):
    X, _ = separable()
    y = np.random.default_rng(3).integers(0, 2, N)  # Only noise to learn, so that validation soon gets worse.
    fast = {**SMALL, "steps": 100, "lr": 0.1}
    model = AnySubsetClassifier(patience=2, verbose=1, **fast).fit(X, y)
    steps = [entry["step"] for entry in model.history_]
    best = min(model.history_, key=lambda entry: entry["validation"])["step"]
    # By hand: a validation every 10 steps, and the second one after the best is the last.
    assert steps == list(range(10, best + 21, 10))
    assert steps[-1] < 100
    printed = capsys.readouterr().out
    assert f"step {steps[-1]}: no new best score in 2 validations, so training ends" in printed
    for entry in model.history_:
        assert set(entry["scenarios"]) == {"blood", "scan", "blood+scan"}
        assert np.mean(list(entry["scenarios"].values())) == pytest.approx(entry["validation"])
        assert entry["loss"] > 0
    whole = AnySubsetClassifier(patience=None, **{**fast, "steps": 50}).fit(X, y)
    assert [entry["step"] for entry in whole.history_] == [5, 10, 15, 20, 25, 30, 35, 40, 45, 50]
    assert not capsys.readouterr().out


def test_patience_does_not_end_a_method_without_gradients():
    # `linear` tries seven strengths of the penalty, one a step.
    model = AnySubsetClassifier(method="linear", patience=1, device="cpu").fit(*separable())
    assert [entry["step"] for entry in model.history_] == [1, 2, 3, 4, 5, 6, 7]
    assert "loss" not in model.history_[0]


def test_neither_import_nor_training_loads_monai(tmp_path: Path):
    code = """
import sys
import numpy as np
from anysubset import AnySubsetClassifier
x = np.random.default_rng(0).normal(size=(40, 2))
AnySubsetClassifier(steps=2, device="cpu").fit({"a": x, "b": x}, x[:, 0] > 0)
print("monai" in sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, timeout=300)
    assert (done.stdout, done.returncode) == ("False\n", 0), done.stderr


def test_a_fraction_of_every_class_is_held_out():
    # By hand: a quarter of 8, a quarter of 4, one of 2; a class of one sample is for training.
    target = [0] * 8 + [1] * 4 + [2] * 2 + [3]
    splits = hold_out(*tiny(target), 0.25, seed=0)
    assert np.bincount([target[int(sample)] for sample in splits["val"]], minlength=4).tolist() == [2, 1, 1, 0]
    assert sorted([*splits["train"], *splits["val"]], key=int) == [str(number) for number in range(15)]
    assert splits != hold_out(*tiny(target), 0.25, seed=1)
    assert hold_out(*tiny(target), 0.0, seed=0) == {"train": tuple(map(str, range(15)))}


def test_a_fraction_of_every_tercile_is_held_out():
    target = [float(number) for number in range(12)]
    held = hold_out(*tiny(target), 0.25, seed=0)["val"]
    assert sorted(int(sample) // 4 for sample in held) == [0, 1, 2]


@pytest.mark.parametrize("fraction", [0.0, 0.3])
def test_validation_selects_the_best_weights(fraction: float, monkeypatch: pytest.MonkeyPatch):
    trained = {}
    inside = base.train

    def spy(method: Any, *others: Any, **more: Any) -> Any:
        trained["progress"] = inside(method, *others, **more)
        trained["last"] = {name: tensor.clone() for name, tensor in method.state_dict().items()}
        return trained["progress"]

    monkeypatch.setattr(base, "train", spy)
    X, _ = separable()
    y = np.random.default_rng(3).integers(0, 2, N)  # Only noise to learn, so that validation selects an early step.
    model = AnySubsetClassifier(validation_fraction=fraction, **{**SMALL, "lr": 0.1}).fit(X, y)
    last = all(torch.equal(trained["last"][name], weight) for name, weight in model.weights_.items())
    assert last == (fraction == 0)
    assert (trained["progress"].best_step == SMALL["steps"]) == (fraction == 0)
    # Training samples would not do for calibration.
    assert model.task_.temperatures.fitted == (fraction > 0)
    if fraction == 0:
        with pytest.raises(InputError, match="needs scores of validation samples, which this training did not keep"):
            model.predict_set(X)
    else:
        # Of 18 validation samples ceil(19 * 0.9) = 18 are covered by the largest score.
        limit = model.conformal_["blood+scan"]["scores"][17]
        np.testing.assert_array_equal(model.predict_set(X), 1 - model.predict_proba(X) <= limit)


def test_a_fraction_of_the_groups_is_held_out():
    # By hand: of 8 samples in groups of two, a quarter is one group.
    ids, target = tiny([0, 1] * 4)
    groups = ["a", "a", "b", "b", "c", "c", "d", "d"]
    drawn = [hold_out(ids, target, 0.25, seed, groups)["val"] for seed in range(20)]
    assert {*drawn} == {("0", "1"), ("2", "3"), ("4", "5"), ("6", "7")}
    with pytest.raises(InputError, match="All samples are of one group: give two groups or more"):
        hold_out(ids, target, 0.25, 0, ["a"] * 8)


def test_groups_are_never_in_training_and_validation():
    X, y = separable()
    groups = np.repeat(np.arange(10), 6)
    model = cheap(validation_fraction=0.3).fit(X, y, groups=groups)
    splits = hold_out(*tiny((y == "well").astype(int).tolist()), 0.3, model.experiment_.seed, groups.tolist())
    assert len(splits["val"]) == 18
    assert model.signature_.fingerprints["val"] == fingerprint(splits["val"])
    with pytest.raises(InputError, match=r"groups has the shape \(3,\): give one group for each of 60 samples"):
        cheap().fit(X, y, groups=[1, 2, 3])


# ------------------------------------------------------------------------------------------------- weights


def test_the_loss_is_the_mean_of_weighted_losses():
    # By hand: squared errors 1 and 9, weights 3 and 0.5: (3 + 4.5) / 2.
    task = Prediction(("a",), streams={"a": Stream("vector", 1)}, error="mse")
    loss = task.loss(torch.tensor([[1.0], [3.0]]), torch.zeros(2), torch.tensor([3.0, 0.5]))
    assert loss.item() == pytest.approx(3.75)


def test_weights_are_those_of_scikit_learn():
    X, y = separable()
    y = np.roll(y, 1)
    weight = np.random.default_rng(5).uniform(0.1, 3, N)
    model = cheap(validation_fraction=0).fit(X["scan"], y, sample_weight=weight)
    x = (X["scan"] - X["scan"].mean(axis=0)) / X["scan"].std(axis=0)
    reference = LogisticRegression(C=1.0).fit(x, y, weight / weight.mean())
    np.testing.assert_allclose(model.predict_proba(X["scan"]), reference.predict_proba(x), atol=1e-4)
    unweighted = LogisticRegression(C=1.0).fit(x, y).predict_proba(x)
    assert abs(unweighted - reference.predict_proba(x)).max() > 1e-2


def test_class_weights_are_sample_weights():
    X, y = separable()
    y[:40] = "ill"
    wells = int((y == "well").sum())
    balanced = np.where(y == "well", N / 2 / wells, N / 2 / (N - wells))
    expected = cheap(validation_fraction=0).fit(X, y, sample_weight=balanced)
    assert same_weights(cheap(class_weight="balanced", validation_fraction=0).fit(X, y), expected)
    twice = cheap(class_weight={"well": 2.0}, validation_fraction=0).fit(X, y, sample_weight=np.full(N, 3.0))
    by_hand = cheap(validation_fraction=0).fit(X, y, sample_weight=np.where(y == "well", 2.0, 1.0))
    assert same_weights(twice, by_hand)
    assert not same_weights(twice, expected)


@pytest.mark.parametrize("method", ["gmd", "ensemble", "taught"])
def test_a_class_of_large_weight_wins_where_there_is_nothing_to_learn(method: str):
    generator = np.random.default_rng(4)
    X, y = {"a": generator.normal(size=(N, 2))}, np.where(np.arange(N) % 2 == 0, "ill", "well")
    if method == "gmd":
        X["b"] = generator.normal(size=(N, 2))
    model = AnySubsetClassifier(method=method, class_weight={"ill": 1000.0}, **SMALL).fit(X, y)
    assert (model.predict(X) == "ill").mean() > 0.9


def test_samples_of_weight_0_are_not_used():
    X, y = separable()
    X["blood"][:10] += 1e3
    weight = np.r_[np.zeros(10), np.full(50, 0.7)]
    model = cheap(validation_fraction=0).fit(X, y, sample_weight=weight)
    assert same_weights(model, cheap(validation_fraction=0).fit({name: x[10:] for name, x in X.items()}, y[10:]))
    regressor = AnySubsetRegressor(method="linear", validation_fraction=0, device="cpu")
    target = np.r_[np.full(10, 1e6), np.arange(50.0)]
    regressor.fit(X, target, sample_weight=weight)
    # By hand: the mean of 0 to 49.
    assert regressor.mean_ == pytest.approx(24.5)
    assert regressor.deviation_ == pytest.approx(np.arange(50).std())


def test_validation_weighs_the_loss():
    task = Prediction(("a",), streams={"a": Stream("vector", 1)}, error="mse")
    inputs = {"a": Observed(torch.zeros(2, 1), torch.arange(2))}
    block = Block(("s", "t"), inputs, [("a",)], torch.zeros(2), task, weights=torch.tensor([3.0, 0.5]))
    scores = block.scores(("a",), torch.tensor([[1.0], [3.0]]), thorough=False)
    assert [score.value for score in scores if score.metric == "loss"] == [3.0, 4.5]
    assert [score.value for score in scores if score.metric == "error"] == [1.0, 3.0]


WEIGHTS = [
    (np.ones(3), {}, "sample_weight has the shape (3,): give one number for each of 60 samples"),
    (["much"] * N, {}, "sample_weight holds numbers, one for each of 60 samples"),
    (-np.ones(N), {}, "sample_weight has numbers that are negative, NaN or infinite: give 0 or more"),
    (np.zeros(N), {}, "sample_weight is zero for every sample"),
    (None, {"class_weight": "even"}, "class_weight is None, 'balanced' or a dict, class -> weight, not 'even'"),
    (None, {"class_weight": {"dead": 1.0}}, "The classes, ['ill', 'well'], are not in class_weight"),
    (None, {"class_weight": {"ill": -1.0}}, "class_weight has numbers that are negative, NaN or infinite, or only 0"),
]


@pytest.mark.parametrize(("weight", "parameters", "message"), WEIGHTS, ids=[line for *_, line in WEIGHTS])
def test_wrong_weights_are_refused_in_one_line(weight: Any, parameters: dict[str, Any], message: str):
    with pytest.raises(InputError, match=re.escape(message)) as refused:
        AnySubsetClassifier(**{**SMALL, **parameters}).fit(*separable(), sample_weight=weight)
    assert "\n" not in str(refused.value)


def test_methods_that_do_not_weigh_samples_refuse_weights():
    model = AnySubsetClassifier(method="cpm", steps=2, device="cpu")
    with pytest.raises(
        InputError, match="Method 'cpm' does not weigh samples: leave out the weights, or choose from: gmd"
    ):
        model.fit(*separable(), sample_weight=np.ones(N))


def test_weights_and_groups_come_through_the_routing_of_metadata():
    X, y = separable()
    seen = []
    inside = base.AnySubset.learn

    def spy(self: Any, X: Any, target: Any, constant: Any, weights: Any, groups: Any) -> Any:
        seen.append((weights, groups))
        return inside(self, X, target, constant, weights, groups)

    groups, weight = np.repeat(np.arange(10), 6), np.arange(1.0, N + 1)
    with pytest.MonkeyPatch.context() as patch, config_context(enable_metadata_routing=True):
        patch.setattr(base.AnySubset, "learn", spy)
        model = cheap(modalities=GROUPS).set_fit_request(sample_weight=True, groups=True)
        model.set_score_request(sample_weight=True)
        scores = cross_validate(
            model, side_by_side(X), y, params={"groups": groups, "sample_weight": weight}, cv=GroupKFold(2)
        )["test_score"]
    assert scores.tolist() == [1.0, 1.0]
    assert sorted(np.concatenate([weights for weights, _ in seen])) == weight.tolist()
    assert not set(seen[0][1]) & set(seen[1][1])


# ------------------------------------------------------------------------------------------------- faults


def changed(**parts: Any) -> dict[str, Any]:
    return {name: part for name, part in {**separable()[0], **parts}.items() if part is not None}


def spoiled(value: float) -> np.ndarray:
    blood = separable()[0]["blood"]
    blood[2, 1] = value
    return blood


PARAMETERS = [
    ({"steps": 1.5}, "steps is a whole number, not 1.5"),
    ({"steps": 0}, "train.steps must be at least 1, not 0"),
    ({"lr": "fast"}, "lr is a number, not 'fast'"),
    ({"lr": -1.0}, "train.lr must be positive"),
    ({"batch": True}, "batch is a whole number, not True"),
    ({"patience": 0}, "train.patience must be at least 1, not 0"),
    ({"verbose": "much"}, "verbose is a whole number or True or False, not 'much'"),
    ({"width": "wide"}, "width is a whole number or None, not 'wide'"),
    ({"method": "gdm"}, "Unknown method 'gdm'. Did you mean 'gmd'?"),
    ({"method": "full", "rule": "index"}, "Unknown option of method 'full' 'rule'"),
    ({"cases": "some"}, "Unknown cases 'some'"),
    ({"options": ["floor"]}, "options is a dict or None, not ['floor']"),
    ({"options": {1: 2}}, "options maps names of options to values; 1 is not a name"),
    ({"options": {"name": "gmd"}}, "options does not name the method: set method."),
    ({"options": {"width": 8}}, "width is set twice, by width= and by options: set one of them"),
    ({"options": {"strength": 1.0}}, "Unknown option of method 'gmd' 'strength'"),
    ({"options": {"floor": "low"}}, "Option floor of method 'gmd' cannot be 'low'; its default is 1e-08"),
    (
        {"method": "gcnet", "layers": None},
        "Method 'gcnet' predicts whole groups of samples, which estimators do not take",
    ),
    ({"preset": "gmc"}, "Preset 'gmc' takes inputs of kind sequence"),
    ({"validation_fraction": 1.0}, "validation_fraction is a share from 0 to below 1, not 1.0"),
    ({"nan": "median"}, "Unknown nan 'median'. Did you mean 'mean'? Choose from: mean, refuse."),
    ({"device": "cuda:99"}, "Device 'cuda:99' is not available"),
    ({"modalities": GROUPS}, "a dict names its modalities"),
]


@pytest.mark.parametrize(("parameters", "message"), PARAMETERS, ids=[message for _, message in PARAMETERS])
def test_a_wrong_parameter_is_refused_in_one_line(parameters: dict[str, Any], message: str):
    X, y = separable()
    with pytest.raises(InputError, match=re.escape(message)) as refused:
        AnySubsetClassifier(**{**SMALL, **parameters}).fit(X, y)
    assert "\n" not in str(refused.value)


TRAINING = [
    ({}, "X is an empty dict"),
    ({3: np.ones((N, 2))}, "Modalities are named by text, not by 3"),
    (changed(scan=np.ones((N - 1, 2))), "Modalities differ in their number of samples: blood 60, scan 59"),
    (changed(scan=None, blood=np.ones((4, 2))), "X has 4 samples, and y 60"),
    (changed(scan=np.ones(N)), "scan has the shape (60,): give (n, size)"),
    (changed(scan=np.ones((N, 0))), "scan has the shape (60, 0)"),
    ({"blood": np.ones((N, 3)), "scan": None}, "scan is None: leave a modality that no sample has out of the dict"),
    (changed(scan=csr_matrix(np.ones((N, 2)))), "scan is a sparse matrix: give a dense array"),
    (changed(scan=[[1.0], [1.0, 2.0]]), "Pad sequences of different lengths with steps of NaN."),
    ([np.ones((N, 3)), np.ones((N, 2))], "X is a list of arrays: give a dict that names the modalities"),
    (changed(scan=np.full((N, 2), "a")), "scan holds <U1, not numbers"),
    (changed(scan=[["a", None]] * N), "scan cannot be read as an array of numbers"),
    (changed(scan=[[1.0], [1.0, 2.0]]), "scan cannot be read as an array of numbers"),
    (changed(scan=np.ones((N, 2)) * 1j), "scan holds complex128, not numbers"),
    (changed(blood=spoiled(np.nan)), "blood is NaN in part, or infinite, in 1 samples (1 values): fill those"),
    (changed(blood=spoiled(np.inf)), "blood is NaN in part, or infinite, in 1 samples (1 values): fill those"),
    (changed(blood=spoiled(1e300)), "blood has values that float32 cannot hold"),
    (changed(scan=np.full((N, 2), np.nan)), "No sample has 'scan': leave it out"),
    (changed(scan=(np.ones((2, 2)), [0])), "scan has 2 samples: give as many whole numbers, their indices in X"),
    (changed(scan=(np.ones((2, 2)), [1, 0])), "scan: indices of samples must ascend from 0 without repeats"),
    (changed(scan=(np.ones((2, 2)), [0, 60])), "names sample 60, but there are 60 samples: indices go from 0 to 59"),
    (changed(scan=(np.ones((2, 2)), [0, 1], 3)), "scan is a tuple of 3"),
    ({"t1-ce": np.ones((N, 2))}, "Modality 't1-ce' is not a plain name"),
    (changed(blood=None, scan=(np.ones((2, 2)), [0, 5])), "Samples need at least one modality; these have none: 1, 2"),
]


@pytest.mark.parametrize(("X", "message"), TRAINING, ids=[message for _, message in TRAINING])
def test_wrong_training_input_is_refused_in_one_line(X: Any, message: str):
    with pytest.raises(InputError, match=re.escape(message)) as refused:
        AnySubsetClassifier(nan="refuse", **SMALL).fit(X, separable()[1])
    assert "\n" not in str(refused.value)


TARGETS = [
    (None, "requires y to be passed"),
    ([], "There are 0 samples"),
    (np.full(N, "ill"), "All 60 samples are of 1 class, 'ill': give"),
    (np.full(N, 1.0), "All 60 samples are of 1 class, 1.0: give"),
    (np.linspace(0, 1, N), "Unknown label type: continuous"),
    (np.full((N, 2), 2), "y has several columns with other values than 0 and 1: train a classifier for each column"),
    (np.full(N, np.nan), "NaN"),
    (["ill", "well"], "X has 60 samples, and y 2"),
]


@pytest.mark.parametrize(("y", "message"), TARGETS, ids=[message for _, message in TARGETS])
def test_a_wrong_target_is_refused_in_one_line(y: Any, message: str):
    with pytest.raises(InputError, match=re.escape(message)) as refused:
        AnySubsetClassifier(**SMALL).fit(separable()[0], y)
    assert "\n" not in str(refused.value)


def test_a_series_with_na_as_target_or_in_place_of_a_frame_is_refused():
    pandas = pytest.importorskip("pandas", reason="pandas is not installed.")
    X, y = separable()
    with pytest.raises(InputError, match="y is NaN or NA for 1 samples: give X and y for the others"):
        AnySubsetClassifier(**SMALL).fit(X, pandas.Series([None, *y[1:]], dtype="string"))
    with pytest.raises(InputError, match=r"scan is a series: give a frame, as in series.to_frame\(\)."):
        AnySubsetClassifier(**SMALL).fit({**X, "scan": pandas.Series(np.ones(N))}, y)


def test_a_single_nan_is_filled_with_the_mean_of_the_column_in_training():
    X, y = with_missing_modalities()
    X["blood"][1, 2] = X["blood"][4, 2] = np.nan
    filled = {name: x.copy() for name, x in X.items()}
    filled["blood"][[1, 4], 2] = np.nanmean(X["blood"].astype(np.float32)[:, 2], dtype=np.float64)
    model = cheap(validation_fraction=0).fit(X, y)
    assert same_weights(model, cheap(validation_fraction=0).fit(filled, y))
    # Samples without blood (0, 3, ..) lack it as before.
    assert model.trained().task.modalities == ("blood", "scan")
    np.testing.assert_allclose(model.predict_proba(X), model.predict_proba(filled), rtol=1e-6)
    new = {"blood": np.array([[np.nan, 0.0, 0.0], [np.nan] * 3]), "scan": np.array([[np.nan] * 2, [1.0, 2.0]])}
    expected = {**new, "blood": np.array([[np.nanmean(X["blood"][:, 0]), 0.0, 0.0], [np.nan] * 3])}
    np.testing.assert_allclose(model.predict_proba(new), model.predict_proba(expected), rtol=1e-5)


def test_the_mean_of_a_column_is_that_of_training_and_not_of_validation_samples():
    X, y = separable()
    X["blood"][0, 1] = np.nan
    model = cheap(validation_fraction=0.5).fit(X, y)
    train, _ = hold_out(*tiny((y == "well").astype(int).tolist()), 0.5, model.experiment_.seed).values()
    own = X["blood"].astype(np.float32)[[int(sample) for sample in train], 1]
    assert float(model.signature_.statistics["blood"][0][1]) == pytest.approx(np.nanmean(own, dtype=np.float64))


def test_single_nan_in_sequences_and_images_is_filled_by_column_and_channel():
    # By hand: column 0 holds 1, 3 and 5 in real steps, channel 1 the numbers 4 and 8; indices 0 and 1 are for training.
    nan = torch.nan
    steps = torch.tensor([[[1.0, 7.0], [nan, 7.0]], [[3.0, 7.0], [0.0, 0.0]], [[5.0, 7.0], [nan, 7.0]]])
    valid = torch.tensor([[True, True], [True, False], [True, True]])
    sequence = Observed(steps, torch.arange(3), valid)
    means = column_means(sequence, torch.tensor([True, True, False]))
    assert_close(means, torch.tensor([2.0, 7.0], dtype=torch.float64))
    assert_close(with_cells_filled(sequence, means).values[:, 1, 0], torch.tensor([2.0, 0.0, 2.0]))
    image = Observed(torch.tensor([[[[1.0, 1.0]], [[4.0, nan]]], [[[1.0, 1.0]], [[8.0, nan]]]]), torch.arange(2))
    means = column_means(image, torch.tensor([True, True]))
    assert_close(means, torch.tensor([1.0, 6.0], dtype=torch.float64))
    assert_close(with_cells_filled(image, means).values[:, 1, 0], torch.tensor([[4.0, 6.0], [8.0, 6.0]]))


def test_a_column_without_values_in_training_is_not_used():
    X, y = separable()
    X["blood"][:, 1] = np.nan
    with pytest.warns(DataWarning, match="1 columns of blood are NaN in all training samples that have blood"):
        model = cheap().fit(X, y)
    other = {**X, "blood": np.where(np.isnan(X["blood"]), 1e6, X["blood"])}
    np.testing.assert_array_equal(model.predict_proba(X), model.predict_proba(other))


def test_infinite_values_are_refused_beside_single_nan():
    X, y = separable()
    X["blood"][3, 1], X["blood"][4, 1] = np.nan, np.inf
    with pytest.raises(InputError, match="blood has 1 infinite values: correct them, or make them NaN"):
        cheap().fit(X, y)


def test_rows_that_an_imputer_filled_in_are_reported():
    X, y = with_missing_modalities()
    imputed = {**X, "scan": SimpleImputer().fit_transform(X["scan"])}
    with pytest.warns(DataWarning, match="20 of 60 samples have the same values in scan, and the others differ: if a"):
        cheap().fit(imputed, y)
    # Categories repeat as well, but more than one of them does.
    categories = {**X, "scan": np.repeat([[0.0, 1.0], [1.0, 0.0]], N // 2, axis=0)}
    cheap().fit(categories, y)


def test_columns_of_the_same_name_are_refused_where_the_names_decide():
    pandas = pytest.importorskip("pandas", reason="pandas is not installed.")
    X, y = separable()
    frame = pandas.DataFrame(X["blood"], columns=["p", "p", "r"])
    model = AnySubsetClassifier(**{**SMALL, "steps": 1}).fit({"blood": frame, "scan": X["scan"]}, y)
    model.predict({"blood": frame})
    with pytest.raises(InputError, match="blood has columns with the same name: 'p'"):
        model.predict({"blood": frame[["r", "p"]]})


def test_numbers_whose_deviation_is_beyond_floats_are_refused():
    X, _ = separable()
    with pytest.raises(InputError, match="y has numbers too large for their mean and deviation"):
        AnySubsetRegressor(**SMALL).fit(X, np.where(np.arange(N) % 2, 1e300, 0.0))


def test_several_processes_are_refused(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(base.processes, "world_size", lambda: 2)
    with pytest.raises(InputError, match="Estimators train in one process"):
        AnySubsetClassifier(**SMALL).fit(*separable())


def test_too_few_samples_to_validate_on_are_refused():
    X = {"a": np.array([[1.0], [2.0]])}
    with pytest.raises(
        InputError, match=r"2 samples cannot be split into training and validation: set validation_fraction to 0"
    ):
        AnySubsetClassifier(**SMALL).fit(X, [0, 1])
    assert AnySubsetClassifier(validation_fraction=0, **SMALL).fit(X, [0, 1]).predict(X).tolist() == [0, 1]
    scarce = {"a": np.ones((4, 1)), "b": (np.ones((1, 1)), [0])}
    drawn = [seed for seed in range(8) if "0" in hold_out(*tiny([0, 0, 1, 1]), 0.5, seed)["val"]]
    assert 0 < len(drawn) < 8
    lost = 0
    for seed in range(8):
        try:
            AnySubsetClassifier(validation_fraction=0.5, **{**SMALL, "steps": 1, "random_state": seed}).fit(
                scarce, [0, 0, 1, 1]
            )
        except InputError as refused:
            assert str(refused) == "Only validation samples have 'b': set validation_fraction to 0."  # noqa: PT017
            lost += 1
    assert 0 < lost < 8


COLUMNS = [
    ([], "modalities maps names to columns"),
    ({}, "modalities maps names to columns"),
    ({0: [0]}, "Modalities are named by text, not by 0"),
    ({"blood": [0, 1], "scan": [1, 2]}, "Column 1 is named twice, by 'blood' and 'scan'"),
    ({"blood": [0, 0]}, "Column 0 is named twice, by 'blood' and 'blood'"),
    ({"blood": [4, 5]}, "Modality 'blood' has columns [4, 5], but the columns of X have indices from 0 to 4"),
    ({"blood": [-1]}, "Modality 'blood' has columns [-1], but the columns of X have indices from 0 to 4"),
    ({"blood": slice(9, 12)}, "Modality 'blood' has no columns slice(9, 12, None) in an array of 5"),
    ({"blood": ["age"]}, "names of columns are for frames"),
    ({"blood": [0.5]}, "give numbers or a slice"),
    ({"blood": [[0], [1, 2]]}, "give numbers or a slice"),
    ({"blood": 3}, "give numbers or a slice"),
    ({"blood": [0, 1], "scan": [2, 3]}, "scan is NaN in part, or infinite, in 20 samples (20 values)"),
]


@pytest.mark.parametrize(("modalities", "message"), COLUMNS, ids=[message for _, message in COLUMNS])
def test_wrong_columns_are_refused_in_one_line(modalities: Any, message: str):
    X, y = separable()
    X["scan"][::3] = np.nan
    with pytest.raises(InputError, match=re.escape(message)) as refused:
        AnySubsetClassifier(modalities=modalities, nan="refuse", **SMALL).fit(side_by_side(X), y)
    assert "\n" not in str(refused.value)


PREDICTION = [
    ({"lung": np.ones((2, 3))}, "Unknown modality 'lung'"),
    ({"blood": np.ones((2, 4))}, "blood is of kind vector and size 4; the run was trained on kind vector and size 3"),
    ({"blood": np.ones((2, 5, 3))}, "blood is of kind sequence and size 3"),
    ({"blood": np.full((2, 3), np.nan)}, "Samples need at least one modality; these have none: 0, 1"),
    ({"blood": np.ones((0, 3))}, "at least one sample"),
    (np.ones((2, 3)), "The training was on a dict of modalities: give a dict"),
]


@pytest.mark.parametrize(("X", "message"), PREDICTION, ids=[message for _, message in PREDICTION])
def test_input_that_does_not_fit_the_training_is_refused_in_one_line(
    X: Any, message: str, classifier: AnySubsetClassifier
):
    with pytest.raises(InputError, match=re.escape(message)) as refused:
        classifier.predict(X)
    assert "\n" not in str(refused.value)


def test_nan_in_a_single_modality_is_refused_with_a_remedy():
    X, y = separable()
    with pytest.raises(InputError, match=r"^X is NaN .* or group the columns with modalities=, so that") as refused:
        AnySubsetClassifier(nan="refuse", **SMALL).fit(np.where(X["blood"] > 2, np.nan, X["blood"]), y)
    assert "\n" not in str(refused.value)


def test_an_array_of_another_width_is_refused_in_one_line(grouped: AnySubsetClassifier):
    with pytest.raises(
        InputError, match=r"X has 4 features, but AnySubsetClassifier is expecting 5 features"
    ) as refused:
        grouped.predict(np.ones((2, 4)))
    assert "\n" not in str(refused.value)


# --------------------------------------------------------------------------------------------- several targets


def test_the_loss_of_several_targets_is_their_mean():
    # By hand: squared errors (1, 9) and (4, 0), means 5 and 2.
    task = Prediction(("a",), streams={"a": Stream("vector", 1)}, error="mse", targets=2)
    output, target = torch.tensor([[1.0, 3.0], [2.0, 0.0]]), torch.zeros(2, 2)
    assert task.losses(output, target).tolist() == [5.0, 2.0]
    assert task.loss(output, target).item() == 3.5
    assert task.loss(output, target, torch.tensor([2.0, 0.0])).item() == 5.0
    labels = Prediction(("a",), streams={"a": Stream("vector", 1)}, targets=2, labels=True)
    # Logits of 0 cost log 2 each, whatever the labels.
    assert labels.loss(torch.zeros(3, 2), torch.ones(3, 2)).item() == pytest.approx(np.log(2))
    assert labels.decision(torch.tensor([[1.0, -1.0]])).tolist() == [[True, False]]
    with pytest.raises(InputError, match="The target has the shape"):
        task.loss(output, torch.zeros(2))


@pytest.mark.parametrize("method", ["gmd", "ensemble", "linear", "blend"])
def test_several_numbers_are_predicted_from_any_subset(method: str):
    X, _ = separable()
    y = np.stack([100 * X["blood"][:, 0], X["blood"][:, 0] - 7], axis=1)
    options = {} if method == "linear" else SMALL
    model = AnySubsetRegressor(method=method, **{"device": "cpu", "random_state": 0, **options}).fit(X, y)
    assert model.predict(X).shape == (N, 2)
    assert model.score(X, y) > 0.9
    scores = model.scenario_scores(X, y)
    assert scores["blood"] > 0.9
    assert scores["blood"] == pytest.approx(r2_score(y, model.predict({"blood": X["blood"]})))
    with pytest.raises(InputError, match="Sets and intervals are for a single target"):
        model.predict_set(X)


@pytest.mark.parametrize("method", ["gmd", "linear", "blend"])
def test_several_labels_are_predicted_from_any_subset(method: str):
    X, y = separable()
    labels = np.stack([y == "ill", y == "well", X["blood"][:, 1] > 0], axis=1).astype(int)
    options = {} if method == "linear" else SMALL
    model = AnySubsetClassifier(method=method, **{"device": "cpu", "random_state": 0, **options}).fit(X, labels)
    probabilities = model.predict_proba({"scan": X["scan"]})
    np.testing.assert_array_equal(probabilities > 0.5, model.predict({"scan": X["scan"]}))
    assert (model.predict(X)[:, :2] == labels[:, :2]).all()
    auroc = model.scenario_scores(X, labels, scoring="roc_auc")
    assert auroc["scan"] == pytest.approx(roc_auc_score(labels, probabilities))
    share = (model.predict({"scan": X["scan"]}) == labels).all(axis=1).mean()
    assert model.scenario_scores(X, labels)["scan"] == pytest.approx(share)
    assert set(model.modality_importances(X, labels, scoring="roc_auc", resamples=3)) == {"blood", "scan"}


def test_what_several_targets_do_not_have_is_refused():
    X, y = separable()
    labels = np.stack([y == "ill", y == "well"], axis=1).astype(int)
    with pytest.raises(InputError, match="Method 'boosting' is for one target: train it for each column of y"):
        AnySubsetClassifier(method="boosting", device="cpu").fit(X, labels)
    with pytest.raises(InputError, match="class_weight is for a single column of classes: give sample_weight"):
        cheap(class_weight="balanced").fit(X, labels)


# ------------------------------------------------------------------------------------------------- frames


def frame(X: dict[str, np.ndarray]) -> Any:
    """Columns b0 b1 b2 and s0 s1, and two that belong to no modality."""
    pandas = pytest.importorskip("pandas", reason="pandas is not installed.")
    columns = {f"{name[0]}{number}": x[:, number] for name, x in X.items() for number in range(x.shape[1])}
    length = len(next(iter(columns.values())))
    return pandas.DataFrame({"who": [f"p{number}" for number in range(length)], **columns, "note": None})


NAMED = {"blood": ["b0", "b1", "b2"], "scan": ["s0", "s1"]}


def test_a_frame_trains_the_same_weights(classifier: AnySubsetClassifier):
    X, y = with_missing_modalities()
    model = AnySubsetClassifier(modalities=NAMED, **SMALL).fit(frame(X), y)
    assert same_weights(classifier, model)
    assert list(model.feature_names_in_) == ["b0", "b1", "b2", "s0", "s1"]
    assert model.n_features_in_ == 5
    np.testing.assert_array_equal(model.predict_proba(frame(X)), classifier.predict_proba(X))
    by_number = AnySubsetClassifier(modalities={"blood": slice(1, 4), "scan": [4, 5]}, **SMALL).fit(frame(X), y)
    assert same_weights(classifier, by_number)
    shuffled = frame(X)[["s1", "b2", "s0", "b0", "b1"]]
    np.testing.assert_array_equal(model.predict_proba(shuffled), classifier.predict_proba(X))


def test_columns_are_grouped_by_prefix_function_or_level(classifier: AnySubsetClassifier):
    X, y = with_missing_modalities()
    names = [f"{name}_{column}" for name, columns in NAMED.items() for column in columns]
    plain = frame(X)[[column for columns in NAMED.values() for column in columns]].set_axis(names, axis=1)
    by_prefix = AnySubsetClassifier(modalities="_", **SMALL).fit(plain, y)
    assert same_weights(classifier, by_prefix)
    assert by_prefix.modalities_ == ("blood", "scan")
    with_note = plain.assign(note="x")
    by_function = AnySubsetClassifier(modalities=first_part, **SMALL).fit(with_note, y)
    assert same_weights(classifier, by_function)
    assert by_function.n_features_in_ == 5
    levels = plain.set_axis([("blood", name) if name[0] == "b" else ("scan", name) for name in names], axis=1)
    pandas = pytest.importorskip("pandas", reason="pandas is not installed.")
    levels.columns = pandas.MultiIndex.from_tuples(levels.columns)
    by_level = AnySubsetClassifier(**SMALL).fit(levels, y)
    assert same_weights(classifier, by_level)
    assert list(by_level.feature_names_in_)[:1] == ["blood/blood_b0"]
    expected = classifier.predict_proba({"scan": separable()[0]["scan"]})
    complete = separable()[0]["scan"]
    scan_only = pandas.DataFrame(complete, columns=pandas.MultiIndex.from_tuples(list(levels.columns)[3:]))
    np.testing.assert_array_equal(by_level.predict_proba(scan_only), expected)
    np.testing.assert_array_equal(by_prefix.predict_proba(scan_only.set_axis(names[3:], axis=1)), expected)
    with pytest.raises(InputError, match=r"modalities='_' is the end of the prefix .*, which note do not have"):
        AnySubsetClassifier(modalities="_", **SMALL).fit(with_note, y)
    with pytest.raises(InputError, match="groups columns by name: give a frame with named columns"):
        AnySubsetClassifier(modalities="_", **SMALL).fit(plain.to_numpy(), y)
    with pytest.raises(InputError, match=r"modalities\('blood_b0'\) is 8: return the name of a modality, or None"):
        AnySubsetClassifier(modalities=len, **SMALL).fit(plain, y)


def first_part(name: str) -> str | None:
    return name.partition("_")[0] if "_" in name else None


def clinical() -> tuple[Any, np.ndarray]:
    """40 samples with a number and a stage; the stage is the class. Sample 0 has no stage, sample 1 neither."""
    pandas = pytest.importorskip("pandas", reason="pandas is not installed.")
    y = np.arange(40) % 2
    stage = np.where(y == 1, "II", "I").astype(object)
    stage[:2] = None
    age = np.random.default_rng(0).normal(60, 9, 40)
    age[1] = np.nan
    return pandas.DataFrame({"scan": np.random.default_rng(1).normal(size=40), "age": age, "stage": stage}), y


CLINICAL = {"scan": ["scan"], "clinic": ["age", "stage"]}


@pytest.mark.parametrize("form", ["frame", "dict"])
def test_categories_become_columns_and_unknown_ones_are_blank_cells(form: str):
    data, y = clinical()

    def given_as(frame: Any) -> Any:
        return frame if form == "frame" else {"scan": frame[["scan"]], "clinic": frame[["stage", "age"]]}

    model = cheap(modalities=CLINICAL if form == "frame" else None, validation_fraction=0).fit(given_as(data), y)
    assert model.categories_ == {"clinic": {"stage": ["I", "II"]}}
    assert model.task_.streams["clinic"].size == 3
    assert model.score(given_as(data), y) > 0.9
    new = data.iloc[2:6]
    unknown, blank = new.assign(stage="IV"), new.assign(stage=None)
    with pytest.warns(
        DataWarning, match="'stage' of clinic has categories that training did not have, in 4 samples: IV"
    ):
        of_unknown = model.predict_proba(given_as(unknown))
    np.testing.assert_array_equal(of_unknown, model.predict_proba(given_as(blank)))
    # By hand: a blank stage counts as the shares of the stages in training.
    mean = model.signature_.statistics["clinic"][0]
    order = [0, 1, 2] if form == "frame" else [2, 0, 1]
    assert_close(mean[order][1:], torch.tensor([0.5, 0.5], dtype=torch.float64))
    with pytest.raises(InputError, match="Set nan='mean' to treat them like blank cells"):
        model.set_params(nan="refuse").predict(given_as(unknown))


def test_a_sample_of_unknown_category_alone_lacks_the_modality():
    data, y = clinical()
    model = cheap(modalities={"scan": ["scan"], "clinic": ["stage"]}, validation_fraction=0).fit(data, y)
    with pytest.warns(DataWarning, match="They are treated like blank cells"):
        probabilities = model.predict_proba(data.assign(stage="IV"))
    np.testing.assert_array_equal(probabilities, model.predict_proba(data[["scan"]]))


def test_numbers_and_types_of_pandas_are_no_categories():
    pandas = pytest.importorskip("pandas", reason="pandas is not installed.")
    data, y = clinical()
    typed = data.assign(
        age=data["age"].astype("Float64"), stage=pandas.Categorical([1.0, 2.0] * 20), scan=data["scan"].astype(object)
    )
    model = cheap(modalities=CLINICAL).fit(typed, y)
    assert model.categories_ == {"clinic": {"stage": ["1", "2"]}}
    assert model.score(typed.assign(stage=[1, 2] * 20), y) == 1.0
    with pytest.raises(InputError, match="Column 'stage' holds a different text in every sample: leave it out"):
        cheap(modalities=CLINICAL).fit(data.assign(stage=[f"p{number}" for number in range(40)]), y)
    with pytest.raises(InputError, match="Column 'age' holds dates or times: give numbers, such as days"):
        cheap(modalities=CLINICAL).fit(data.assign(age=pandas.Timestamp("2020-01-01")), y)


def test_a_frame_may_lack_all_columns_of_a_modality(classifier: AnySubsetClassifier):
    X, y = with_missing_modalities()
    model = AnySubsetClassifier(modalities=NAMED, **SMALL).fit(frame(X), y)
    complete, _ = separable()
    np.testing.assert_array_equal(
        model.predict_proba(frame({"scan": complete["scan"]})), classifier.predict_proba({"scan": complete["scan"]})
    )
    with pytest.raises(InputError, match=r"X has some columns of 'blood', but not 'b1': give all of them or none"):
        model.predict(frame(complete).drop(columns="b1"))
    with pytest.raises(InputError, match="X has no columns of any modality"):
        model.predict(frame(complete)[["who"]])


def test_a_column_that_a_frame_lacks_is_refused_in_training():
    X, y = separable()
    with pytest.raises(InputError, match=r"Unknown column 'b3'\. Did you mean"):
        AnySubsetClassifier(modalities={**NAMED, "blood": ["b0", "b3"]}, **SMALL).fit(frame(X), y)
    with pytest.raises(InputError, match="Column 'b0' is named twice, by 'blood' and 'scan'"):
        AnySubsetClassifier(modalities={**NAMED, "scan": ["s0", "b0"]}, **SMALL).fit(frame(X), y)


def test_a_frame_without_modalities_is_a_single_modality_with_its_column_names():
    X, y = separable()
    table = frame({"blood": X["blood"]})[["b0", "b1", "b2"]]
    model = AnySubsetClassifier(**SMALL).fit(table, y)
    assert list(model.feature_names_in_) == ["b0", "b1", "b2"]
    assert model.score(table, y) == 1.0


def test_numbers_that_seem_to_stand_for_missing_values_are_warnings():
    x = np.random.default_rng(0).normal(size=(N, 3))
    y = x[:, 0].copy()
    x[:4, 1], y[5] = -9999, -999
    model = AnySubsetRegressor(**{**SMALL, "steps": 1})
    with pytest.warns(DataWarning) as caught:
        model.fit({"blood": x}, y)
    assert [str(warning.message).partition(":")[0] for warning in caught] == [
        "Values of y are -999 for 1 samples",
        "4 values of blood are -9999, in 4 samples",
    ]
    assert [Path(warning.filename).name for warning in caught] == ["test_estimators.py"] * 2
