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
    learned,
    learning_speed,
    mean_cosines,
    read_history,
    read_losses,
    smoothed,
    summary,
    training_summary,
)
from anysubset.training.run import DecouplingLog, Decouplings

Rows = Mapping[str, tuple[float, ...]]
PAIR = {"a": (1.0, 0.0), "b": (-1.0, 1.0)}


def step_of(rows: Rows, rule: str = "index") -> Decoupling:
    """What decoupling sees and decides of these gradients."""
    jacobian = torch.tensor(list(rows.values()), dtype=torch.float64)
    copies = copies_named(rule)(jacobian @ jacobian.T, torch.Generator().manual_seed(0))
    return Decoupling(tuple(rows), jacobian @ jacobian.T, copies.sum(dim=0), copies)


def history(steps: Mapping[int, Rows], rule: str = "index") -> History:
    log = Decouplings()
    for step, rows in steps.items():
        log.add(step, step_of(rows, rule))
    return history_of(log.arrays())


def random_rows(seed: int, names: str) -> dict[str, tuple[float, ...]]:
    found = torch.randn(len(names), 3, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return {name: tuple(values) for name, values in zip(names, found.tolist(), strict=True)}


# ------------------------------------------------------------------------------------------------------- by hand


def test_a_pair_by_hand():
    seen = history({1: PAIR})
    # |a| = 1, |b| = sqrt 2, a.b = -1: cosine -1 / sqrt 2, 135 degrees. Copies (.5, .5) and (0, 1): 45 degrees.
    before, after = angles(seen)
    assert before == pytest.approx([135])
    assert after == pytest.approx([45])
    assert conflicting(seen).tolist() == [1]
    found = summary(seen)
    assert found["norms"] == pytest.approx({"a": 1, "b": 2**0.5})
    assert found["coefficients"] == pytest.approx({"a": 2, "b": 1.5})
    assert found["pairs"] == [{"cases": ["a", "b"], "cosine": pytest.approx(-(0.5**0.5)), "conflicting": 1.0}]
    np.testing.assert_allclose(found["cosines"], [[1, -(0.5**0.5)], [-(0.5**0.5), 1]])
    # 135 lies in 130 to 140, the 14th of 18 bins; 45 in the fifth.
    assert (found["angles"]["before"].index(1), found["angles"]["after"].index(1)) == (13, 4)
    assert (sum(found["angles"]["before"]), sum(found["angles"]["after"]), len(found["angles"]["after"])) == (1, 1, 18)


def test_the_angles_are_those_between_the_vectors():
    rows = random_rows(3, "abcde")
    seen = history({1: rows}, rule="sequential")
    jacobian = np.array(list(rows.values()))
    for found, vectors in zip(angles(seen), (jacobian, seen.copies[0] @ jacobian), strict=True):
        unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
        first, second = np.triu_indices(5, 1)
        np.testing.assert_allclose(found, np.degrees(np.arccos((unit @ unit.T)[first, second])))


def test_without_decoupling_the_angles_stay():
    before, after = angles(history({1: random_rows(0, "abcd"), 2: random_rows(1, "ab")}, rule="none"))
    assert len(before) == 6 + 1
    np.testing.assert_allclose(after, before)


def test_what_is_projected_away_has_no_angle():
    # T3b: of exactly opposite gradients nothing is left but rounding noise; the pair (a, c) becomes (0, c).
    before, after = angles(history({1: {"a": (3.0, 0.1), "b": (-1.0, -0.1 / 3)}}))
    assert (before.tolist(), after.tolist()) == ([], [])
    before, after = angles(history({1: {"a": (3.0, 0.0), "b": (-1.0, 0.0), "c": (0.0, 1.0), "d": (0.0, 0.0)}}))
    assert (before.tolist(), after.tolist()) == ([], [])
    before, _ = angles(history({1: {"c": (0.0, 1.0), "d": (0.0, 0.0), "e": (1.0, 1.0)}}))
    assert before == pytest.approx([45])


def test_angles_are_counted_in_bins_of_ten_degrees():
    counts = angle_counts(np.array([0.0, 9.9, 10.0, 89.0, 90.0, 180.0]))
    assert {place: int(count) for place, count in enumerate(counts) if count} == {0: 2, 1: 1, 8: 1, 9: 1, 17: 1}


# ---------------------------------------------------------------------------------------------------- by case


def test_the_order_of_the_rows_changes_nothing_by_case():
    steps = {1: random_rows(1, "abcd"), 2: random_rows(2, "cda"), 5: random_rows(5, "bd")}
    orders = {1: "cadb", 2: "acd", 5: "db"}
    seen, other = Decouplings(), Decouplings()
    for step, rows in steps.items():
        once = step_of(rows)
        seen.add(step, once)
        # The same step, its rows in another order: what was decided goes with them.
        places = torch.tensor([list(rows).index(name) for name in orders[step]])
        assert places.tolist() != sorted(places.tolist())
        assert once.copies is not None
        square = (places[:, None], places)
        other.add(
            step,
            Decoupling(tuple(orders[step]), once.gramian[square], once.coefficient_vector[places], once.copies[square]),
        )
    first, second = history_of(seen.arrays()), history_of(other.arrays())
    assert first.cases != second.cases
    found, again = training_summary(first), training_summary(second)
    for name in ("norms", "coefficients"):
        assert found[name] == pytest.approx(again[name])
    assert [each["coefficients"] for each in found["thirds"]] == [each["coefficients"] for each in again["thirds"]]
    assert found["conflicting"] == again["conflicting"]
    assert found["angles"] == again["angles"]
    pairs = [
        {frozenset(pair["cases"]): (pytest.approx(pair["cosine"]), pair["conflicting"]) for pair in each["pairs"]}
        for each in (found, again)
    ]
    assert len(pairs[0]) == 6
    assert pairs[0] == pairs[1]


def test_a_case_that_was_not_drawn_has_no_number():
    seen = history(
        {1: {"a": (1.0, 0.0), "b": (-2.0, 0.5)}, 2: {"b": (0.0, 3.0)}, 3: {"c": (1.0, 1.0), "a": (2.0, 0.0)}}
    )
    norms = by_case(seen, seen.norms)
    assert seen.cases == ("a", "b", "c")
    assert np.isnan(norms).tolist() == [[False, False, True], [True, False, True], [False, True, False]]
    assert norms[:, 0].tolist()[::2] == [1, 2]
    # b and c never met; a and c did once, at 45 degrees.
    cosines = mean_cosines(seen)
    assert np.isnan(cosines[1, 2])
    assert cosines[0, 2] == pytest.approx(0.5**0.5)
    assert conflicts(seen)[0].tolist() == [0, 1, 0]
    # A step of one case has no pair.
    assert conflicting(seen).tolist() == pytest.approx([1, float("nan"), 0], nan_ok=True)


def test_cosines_are_averaged_over_the_steps_in_which_both_were():
    seen = history({1: PAIR, 2: {"a": (1.0, 0.0), "b": (1.0, 0.0)}, 3: {"a": (1.0, 0.0)}})
    assert mean_cosines(seen)[0, 1] == pytest.approx((1 - 0.5**0.5) / 2)
    assert conflicts(seen)[0, 1] == 0.5
    assert mean_cosines(seen.between(1, 3))[0, 1] == pytest.approx(1)


def test_the_window_is_counted_in_steps_and_looks_back():
    step = np.array([10, 20, 60, 110, 120])
    values = np.array([[1.0, np.nan], [3.0, np.nan], [5.0, 4.0], [7.0, np.inf], [9.0, 8.0]])
    found = smoothed(step, values, window=100)
    # Step 110 no longer sees step 10, and step 120 no longer 20; what is not finite counts as not there.
    assert found[:, 0].tolist() == [1, 2, 3, 5, 7]
    assert found[:, 1].tolist() == pytest.approx([np.nan, np.nan, 4, 4, 6], nan_ok=True)


def test_thirds_are_those_of_the_steps_that_were_taken():
    peace = {"a": (1.0, 0.0), "b": (1.0, 0.0)}
    found = training_summary(history({1: PAIR, 2: PAIR, 3: PAIR, 4: peace, 30: PAIR, 60: peace, 90: peace}))
    assert [each["until"] for each in found["thirds"]] == [30, 60, 90]
    assert [each["conflicting"] for each in found["thirds"]] == [pytest.approx(4 / 5), 0, 0]
    assert found["thirds"][0]["coefficients"]["a"] == pytest.approx((4 * 2 + 1) / 5)
    assert found["coefficients"]["a"] == pytest.approx((4 * 2 + 3) / 7)
    empty = training_summary(history({90: PAIR}))["thirds"][0]
    assert empty == {"until": 30, "conflicting": None, "coefficients": {"a": None, "b": None}}


# ------------------------------------------------------------------------------------------------- learning speed


def test_learning_is_the_share_of_the_first_loss_that_is_gone():
    step = np.arange(1, 31)
    falling = np.where(step <= 3, 4.0, np.where(step <= 10, 3.0, np.where(step <= 20, 2.0, 1.0)))
    losses = Losses(step, {"a": falling, "a+b": falling, "b": np.full(30, 0.5)})
    # By hand, windows of 30 / 10 = 3 steps: from 4 to 3, to 2, to 1. What is not a modality alone has no speed.
    assert learning_speed(losses) == {"a": [0.25, 0.5, 0.75], "b": [0, 0, 0]}
    found = learned(losses, window=3)
    assert list(found) == ["a", "b"]
    # At step 4: (4 + 4 + 3) / 3 of 4.
    assert found["a"][[0, 2, 3]].tolist() == pytest.approx([0, 0, 1 - 11 / 12])


def test_learning_leaves_out_what_was_not_drawn():
    losses = Losses(np.arange(1, 31), {"a": np.full(30, np.nan), "b": np.where(np.arange(30) == 0, 2.0, np.nan)})
    found = learning_speed(losses)
    assert found["a"] == pytest.approx([np.nan] * 3, nan_ok=True)
    assert found["b"] == pytest.approx([np.nan] * 3, nan_ok=True)
    assert learning_speed(Losses(np.zeros(0, np.int64), {})) == {}


def test_losses_are_read_from_the_log_but_for_a_line_that_was_cut_off(tmp_path):
    lines = [{"step": 1, "losses": {"a": 1.0}}, {"step": 1, "validation": 0.3}, {"step": 2, "losses": {"b": 2.0}}]
    (tmp_path / "metrics.jsonl").write_text("\n".join(map(json.dumps, lines)) + '\n{"step": 3, "lo')
    found = read_losses(tmp_path)
    assert found.step.tolist() == [1, 2]
    assert found.values["a"].tolist() == pytest.approx([1, np.nan], nan_ok=True)
    assert found.values["b"].tolist() == pytest.approx([np.nan, 2], nan_ok=True)
    assert read_losses(tmp_path / "nothing").values == {}


# ----------------------------------------------------------------------------------------------------------- files


def test_an_older_log_which_calls_coefficients_weights_is_read_and_has_no_angles(tmp_path):
    log = Decouplings()
    for step in (1, 2):
        log.add(step, step_of(PAIR))
    arrays = log.arrays()
    older = {name: array for name, array in arrays.items() if name not in ("gramian", "copies")}
    older["weights"] = older.pop("coefficients")
    np.savez_compressed(tmp_path / "decoupling.npz", **older)
    found = read_history(tmp_path)
    assert found is not None
    assert np.isnan(found.gramian).all()
    assert summary(found)["coefficients"] == pytest.approx({"a": 2, "b": 1.5})
    assert sum(summary(found)["angles"]["before"]) == 0


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


def test_steps_that_overflowed_count_for_nothing_and_json_holds_the_rest(tmp_path: Path):
    log = DecouplingLog(tmp_path / "decoupling.npz", 0)
    log.add(1, step_of(PAIR))
    log.add(2, step_of({"a": (float("inf"), 0.0), "b": (1.0, 0.0)}))
    log.save()
    found = diagnosis(tmp_path, history({1: {"a": (1.0, 0.0)}}))
    assert json.loads(json.dumps(found, allow_nan=False)) == found
    assert found["training"]["coefficients"] == pytest.approx({"a": 2, "b": 1.5})
    assert found["now"]["conflicting"] is None
    assert found["now"]["pairs"] == []
