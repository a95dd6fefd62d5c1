"""Decoupling rules by name, including those of TorchJD."""

import pytest
import torch

from anysubset.errors import InputError
from anysubset.gradients import GMD
from anysubset.gradients.rules import RULES, rule_named

STRONG_AND_WEAK = torch.tensor([[100.0, -6.0], [-6.0, 1.0]], dtype=torch.float64)  # (10, 0) and (-.6, .8).


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("name", RULES)
def test_every_rule_has_one_name(name: str):
    assert rule_named(name) is RULES[name]


def test_an_unknown_rule_is_refused_with_the_nearest():
    with pytest.raises(InputError, match=r"'sequental'.*sequential"):
        rule_named("sequental")


def test_a_rule_of_torchjd_that_is_not_installed_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(__import__("sys").modules, "torchjd", None)
    with pytest.raises(InputError, match=r"pip install -e '\.\[rules\]'"):
        rule_named("torchjd=MGDA")


def test_pcgrad_of_torchjd_equals_sequential():
    pytest.importorskip("torchjd")
    # T1: two cases have one order.
    coefficients = rule_named("torchjd=PCGrad")(STRONG_AND_WEAK, seeded())
    assert coefficients.tolist() == pytest.approx([1.06, 7], abs=1e-12)


def test_mgda_of_torchjd_gives_the_shortest_convex_combination():
    pytest.importorskip("torchjd")
    # Of a (10, 0) and b (-.6, .8), the least |w a + (1 - w) b|: w = (b.b - a.b) / |a - b|^2 = 7 / 113.
    coefficients = rule_named("torchjd=MGDA")(STRONG_AND_WEAK, seeded())
    assert coefficients.tolist() == pytest.approx([7 / 113, 106 / 113], abs=1e-3)


def test_the_mean_of_torchjd_works_in_gmd():
    pytest.importorskip("torchjd")
    s = torch.nn.Parameter(torch.zeros(2, dtype=torch.float64))
    GMD([s], rule=rule_named("torchjd=Mean"), reduction="sum").backward({"a": 10 * s[0], "b": 0.8 * s[1] - 0.6 * s[0]})
    assert s.grad is not None
    assert s.grad.tolist() == pytest.approx([4.7, 0.4])


def test_torchjd_draws_from_our_generator_only():
    pytest.importorskip("torchjd")
    rule = rule_named("torchjd=Random")
    before = torch.get_rng_state()
    first, second = rule(STRONG_AND_WEAK, seeded(1)), rule(STRONG_AND_WEAK, seeded(1))
    assert torch.equal(first, second)
    assert not torch.equal(first, rule(STRONG_AND_WEAK, seeded(2)))
    assert torch.equal(torch.get_rng_state(), before)


def test_a_nonfinite_gramian_gives_nan_coefficients():
    pytest.importorskip("torchjd")
    broken = STRONG_AND_WEAK.clone()
    broken[0, 1] = broken[1, 0] = torch.nan
    assert rule_named("torchjd=MGDA")(broken, seeded()).isnan().all()


def test_an_unknown_rule_of_torchjd_is_refused_with_the_nearest():
    pytest.importorskip("torchjd")
    with pytest.raises(InputError, match=r"'PCGard'.*PCGrad"):
        rule_named("torchjd=PCGard")


def test_a_rule_of_torchjd_that_needs_more_than_a_gramian_is_unknown():
    pytest.importorskip("torchjd")
    with pytest.raises(InputError, match="rule of TorchJD 'Constant'"):
        rule_named("torchjd=Constant")


def test_gmd_takes_a_rule_by_name():
    # T1, whose coefficients under `norm` are 5.5 / 10 and 5.5 / 1.
    s = torch.nn.Parameter(torch.zeros(2, dtype=torch.float64))
    losses = {"a": 10 * s[0], "b": 0.8 * s[1] - 0.6 * s[0]}
    step = GMD([s], rule="norm").backward(losses)
    assert step.coefficients == pytest.approx({"a": 0.55, "b": 5.5})
    with pytest.raises(InputError, match="'sequental'"):
        GMD([s], rule="sequental")
