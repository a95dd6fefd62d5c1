import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
import torch

from anysubset.errors import InputError
from anysubset.gradients import Decoupling, copies_named
from anysubset.report.diagnostics import (
    History,
    Losses,
    angle_counts,
    angles,
    by_case,
    conflicting,
    conflicts,
    diagnosis,
    history_of,
    learning_speed,
    loss_decrease,
    mean_cosines,
    read_history,
    read_losses,
    smoothed,
    summary,
    training_summary,
)
from anysubset.training.decoupling_log import DecouplingLog, Decouplings

Rows = Mapping[str, tuple[float, ...]]
PAIR = {"a": (1.0, 0.0), "b": (-1.0, 1.0)}


def step_of(rows: Rows, rule: str = "index") -> Decoupling:
    """Decoupling of one step, from the gradient of each case."""
    jacobian = torch.tensor(list(rows.values()), dtype=torch.float64)
    copies = copies_named(rule)(jacobian @ jacobian.T, torch.Generator().manual_seed(0))
    return Decoupling(tuple(rows), jacobian @ jacobian.T, copies.sum(dim=0), copies)


def history(steps: Mapping[int, Rows], rule: str = "index") -> History:
    """History of these steps, as it is logged and read."""
    log = Decouplings()
    for step, rows in steps.items():
        log.add(step, step_of(rows, rule))
    return history_of(log.arrays())


def random_rows(seed: int, names: str) -> dict[str, tuple[float, ...]]:
    gradients = torch.randn(len(names), 3, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return {name: tuple(values) for name, values in zip(names, gradients.tolist(), strict=True)}


# ------------------------------------------------------------------------------------------------------- by hand


def test_a_pair_by_hand():
    seen = history({1: PAIR})
    # |a| = 1, |b| = sqrt 2, a.b = -1: cosine -1 / sqrt 2, 135 degrees. Copies (.5, .5) and (0, 1): 45 degrees.
    before, after = angles(seen)
    assert before == pytest.approx([135])
    assert after == pytest.approx([45])
    assert conflicting(seen).tolist() == [1]
    result = summary(seen)
    assert result["norms"] == pytest.approx({"a": 1, "b": 2**0.5})
    assert result["coefficients"] == pytest.approx({"a": 2, "b": 1.5})
    assert result["pairs"] == [{"cases": ["a", "b"], "cosine": pytest.approx(-(0.5**0.5)), "conflicting": 1.0}]
    np.testing.assert_allclose(result["cosines"], [[1, -(0.5**0.5)], [-(0.5**0.5), 1]])
    # 135 lies in 130 to 140, the 14th of 18 bins; 45 in the fifth.
    assert (result["angles"]["before"].index(1), result["angles"]["after"].index(1)) == (13, 4)
    assert [sum(result["angles"][when]) for when in ("before", "after")] == [1, 1]
    assert len(result["angles"]["after"]) == 18


def test_angles_equal_those_between_the_gradient_vectors():
    rows = random_rows(3, "abcde")
    seen = history({1: rows}, rule="sequential")
    jacobian = np.array(list(rows.values()))
    for degrees, vectors in zip(angles(seen), (jacobian, seen.copies[0] @ jacobian), strict=True):
        unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
        first, second = np.triu_indices(5, 1)
        np.testing.assert_allclose(degrees, np.degrees(np.arccos((unit @ unit.T)[first, second])))


def test_without_decoupling_angles_do_not_change():
    before, after = angles(history({1: random_rows(0, "abcd"), 2: random_rows(1, "ab")}, rule="none"))
    assert len(before) == 6 + 1
    np.testing.assert_allclose(after, before)


def test_gradients_projected_to_zero_have_no_angle():
    # Exactly opposite gradients are projected to zero up to rounding errors; the pair (a, c) becomes (0, c).
    before, after = angles(history({1: {"a": (3.0, 0.1), "b": (-1.0, -0.1 / 3)}}))
    assert (before.tolist(), after.tolist()) == ([], [])
    before, after = angles(history({1: {"a": (3.0, 0.0), "b": (-1.0, 0.0), "c": (0.0, 1.0), "d": (0.0, 0.0)}}))
    assert (before.tolist(), after.tolist()) == ([], [])
    before, _ = angles(history({1: {"c": (0.0, 1.0), "d": (0.0, 0.0), "e": (1.0, 1.0)}}))
    assert before == pytest.approx([45])


def test_angles_are_counted_in_bins_of_ten_degrees():
    counts = angle_counts(np.array([0.0, 9.9, 10.0, 89.0, 90.0, 180.0]))
    assert {index: int(count) for index, count in enumerate(counts) if count} == {0: 2, 1: 1, 8: 1, 9: 1, 17: 1}


# ---------------------------------------------------------------------------------------------------- by case


def test_values_by_case_do_not_depend_on_the_order_of_the_cases():
    steps = {1: random_rows(1, "abcd"), 2: random_rows(2, "cda"), 5: random_rows(5, "bd")}
    orders = {1: "cadb", 2: "acd", 5: "db"}
    seen, other = Decouplings(), Decouplings()
    for step, rows in steps.items():
        once = step_of(rows)
        seen.add(step, once)
        # The same step with its cases, and everything that belongs to them, in another order.
        order = torch.tensor([list(rows).index(name) for name in orders[step]])
        assert order.tolist() != sorted(order.tolist())
        assert once.copies is not None
        square = (order[:, None], order)
        other.add(
            step,
            Decoupling(tuple(orders[step]), once.gramian[square], once.coefficient_vector[order], once.copies[square]),
        )
    first, second = history_of(seen.arrays()), history_of(other.arrays())
    assert first.cases != second.cases
    result, reordered = training_summary(first), training_summary(second)
    for name in ("norms", "coefficients"):
        assert result[name] == pytest.approx(reordered[name])
    assert [third["coefficients"] for third in result["thirds"]] == [
        third["coefficients"] for third in reordered["thirds"]
    ]
    assert result["conflicting"] == reordered["conflicting"]
    assert result["angles"] == reordered["angles"]
    pairs = [
        {frozenset(pair["cases"]): (pytest.approx(pair["cosine"]), pair["conflicting"]) for pair in of_run["pairs"]}
        for of_run in (result, reordered)
    ]
    assert len(pairs[0]) == 6
    assert pairs[0] == pairs[1]


def test_a_case_that_was_not_drawn_has_no_value():
    seen = history(
        {1: {"a": (1.0, 0.0), "b": (-2.0, 0.5)}, 2: {"b": (0.0, 3.0)}, 3: {"c": (1.0, 1.0), "a": (2.0, 0.0)}}
    )
    norms = by_case(seen, seen.norms)
    assert seen.cases == ("a", "b", "c")
    assert np.isnan(norms).tolist() == [[False, False, True], [True, False, True], [False, True, False]]
    assert norms[:, 0].tolist()[::2] == [1, 2]
    # b and c share no step; a and c share one, at 45 degrees.
    cosines = mean_cosines(seen)
    assert np.isnan(cosines[1, 2])
    assert cosines[0, 2] == pytest.approx(0.5**0.5)
    assert conflicts(seen)[0].tolist() == [0, 1, 0]
    # A step of one case has no pair.
    assert conflicting(seen).tolist() == pytest.approx([1, float("nan"), 0], nan_ok=True)


def test_cosines_are_averaged_over_the_steps_with_both_cases():
    seen = history({1: PAIR, 2: {"a": (1.0, 0.0), "b": (1.0, 0.0)}, 3: {"a": (1.0, 0.0)}})
    assert mean_cosines(seen)[0, 1] == pytest.approx((1 - 0.5**0.5) / 2)
    assert conflicts(seen)[0, 1] == 0.5
    assert mean_cosines(seen.between(1, 3))[0, 1] == pytest.approx(1)


def test_the_running_mean_covers_the_last_steps():
    step = np.array([10, 20, 60, 110, 120])
    values = np.array([[1.0, np.nan], [3.0, np.nan], [5.0, 4.0], [7.0, np.inf], [9.0, 8.0]])
    means = smoothed(step, values, window=100)
    # The window of step 110 excludes step 10, that of step 120 excludes step 20; values not finite are ignored.
    assert means[:, 0].tolist() == [1, 2, 3, 5, 7]
    assert means[:, 1].tolist() == pytest.approx([np.nan, np.nan, 4, 4, 6], nan_ok=True)


def test_thirds_are_counted_in_training_steps():
    aligned = {"a": (1.0, 0.0), "b": (1.0, 0.0)}
    result = training_summary(history({1: PAIR, 2: PAIR, 3: PAIR, 4: aligned, 30: PAIR, 60: aligned, 90: aligned}))
    assert [third["until"] for third in result["thirds"]] == [30, 60, 90]
    assert [third["conflicting"] for third in result["thirds"]] == [pytest.approx(4 / 5), 0, 0]
    assert result["thirds"][0]["coefficients"]["a"] == pytest.approx((4 * 2 + 1) / 5)
    assert result["coefficients"]["a"] == pytest.approx((4 * 2 + 3) / 7)
    empty = training_summary(history({90: PAIR}))["thirds"][0]
    assert empty == {"until": 30, "conflicting": None, "coefficients": {"a": None, "b": None}}


# ------------------------------------------------------------------------------------------------- learning speed


def test_learning_speed_is_the_relative_decrease_of_the_initial_loss():
    step = np.arange(1, 31)
    falling = np.where(step <= 3, 4.0, np.where(step <= 10, 3.0, np.where(step <= 20, 2.0, 1.0)))
    losses = Losses(step, {"a": falling, "a+b": falling, "b": np.full(30, 0.5)})
    # Windows of 30 / 10 = 3 steps: from 4 to 3, to 2, to 1. Cases of several modalities have no learning speed.
    assert learning_speed(losses) == {"a": [0.25, 0.5, 0.75], "b": [0, 0, 0]}
    decreases = loss_decrease(losses, window=3)
    assert list(decreases) == ["a", "b"]
    # At step 4 the mean loss is (4 + 4 + 3) / 3, which is 11/12 of 4.
    assert decreases["a"][[0, 2, 3]].tolist() == pytest.approx([0, 0, 1 - 11 / 12])


def test_a_modality_without_logged_losses_has_no_learning_speed():
    losses = Losses(np.arange(1, 31), {"a": np.full(30, np.nan), "b": np.where(np.arange(30) == 0, 2.0, np.nan)})
    speed = learning_speed(losses)
    assert speed["a"] == pytest.approx([np.nan] * 3, nan_ok=True)
    assert speed["b"] == pytest.approx([np.nan] * 3, nan_ok=True)
    assert learning_speed(Losses(np.zeros(0, np.int64), {})) == {}


def test_an_incomplete_last_line_of_the_log_is_ignored(tmp_path):
    lines = [{"step": 1, "losses": {"a": 1.0}}, {"step": 1, "validation": 0.3}, {"step": 2, "losses": {"b": 2.0}}]
    (tmp_path / "metrics.jsonl").write_text("\n".join(map(json.dumps, lines)) + '\n{"step": 3, "lo')
    losses = read_losses(tmp_path)
    assert losses.step.tolist() == [1, 2]
    assert losses.values["a"].tolist() == pytest.approx([1, np.nan], nan_ok=True)
    assert losses.values["b"].tolist() == pytest.approx([np.nan, 2], nan_ok=True)
    assert read_losses(tmp_path / "nothing").values == {}


# ----------------------------------------------------------------------------------------------------------- files


def test_a_log_of_an_older_version_is_read_without_angles(tmp_path):
    log = Decouplings()
    for step in (1, 2):
        log.add(step, step_of(PAIR))
    arrays = log.arrays()
    older = {name: array for name, array in arrays.items() if name not in ("gramian", "copies")}
    older["weights"] = older.pop("coefficients")  # The former name.
    np.savez_compressed(tmp_path / "decoupling.npz", **older)
    read = read_history(tmp_path)
    assert read is not None
    assert np.isnan(read.gramian).all()
    assert summary(read)["coefficients"] == pytest.approx({"a": 2, "b": 1.5})
    assert sum(summary(read)["angles"]["before"]) == 0


def test_a_run_without_decoupling_has_no_history(tmp_path):
    assert read_history(tmp_path) is None
    assert diagnosis(tmp_path, history({1: PAIR}))["training"] is None


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 half", b"nothing of ours"])
def test_a_damaged_log_is_refused_in_one_line(tmp_path, content):
    (tmp_path / "decoupling.npz").write_bytes(content)
    with pytest.raises(InputError, match=r"decoupling\.npz is damaged") as caught:
        read_history(tmp_path)
    assert "\n" not in str(caught.value)


def test_a_log_that_lacks_an_array_is_refused(tmp_path):
    np.savez(tmp_path / "decoupling.npz", step=np.array([1]))
    with pytest.raises(InputError, match="damaged"):
        read_history(tmp_path)


def test_steps_that_overflowed_are_ignored(tmp_path: Path):
    log = DecouplingLog(tmp_path / "decoupling.npz", 0)
    log.add(1, step_of(PAIR))
    log.add(2, step_of({"a": (float("inf"), 0.0), "b": (1.0, 0.0)}))
    log.save()
    result = diagnosis(tmp_path, history({1: {"a": (1.0, 0.0)}}))
    assert json.loads(json.dumps(result, allow_nan=False)) == result
    assert result["training"]["coefficients"] == pytest.approx({"a": 2, "b": 1.5})
    assert result["now"]["conflicting"] is None
    assert result["now"]["pairs"] == []
