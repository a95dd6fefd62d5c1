import itertools

import numpy as np
import pytest
import torch

from anysubset.batches import Observed
from anysubset.datasets.amputation import (
    presence,
    remove,
    remove_at_random,
    remove_by_rates,
    remove_monotone,
    restrict,
    true_rate,
)
from anysubset.datasets.missingness import Present
from anysubset.errors import InputError
from anysubset.tables.table import Table, differences

NAMES = ("text", "audio", "vision")


def table(samples: int, incomplete: bool = False) -> Table:
    """Samples with three modalities; if incomplete, every second one lacks audio. Text is a sequence."""
    valid = torch.tensor([[True, False]]).repeat(samples, 1)
    rows = torch.arange(0, samples, 2 if incomplete else 1)
    inputs = {
        "text": Observed(
            torch.arange(samples).float()[:, None, None] * valid[:, :, None], torch.arange(samples), valid
        ),
        "audio": Observed(rows[:, None].float(), rows),
        "vision": Observed(torch.ones(samples, 2), torch.arange(samples)),
    }
    return Table(tuple(map(str, range(samples))), inputs, torch.zeros(samples))


def whole(samples: int, incomplete: bool = False) -> Present:
    return presence(table(samples, incomplete))


def generator(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def shares(thinned: Present) -> dict[str, float]:
    """Share of the samples that have exactly these modalities, by scenario."""
    present = ["+".join(names) for names in thinned.values()]
    return {name: present.count(name) / len(present) for name in set(present)}


WAYS = {
    "at random": lambda present, **more: remove_at_random(present, 0.5, generator(), **more),
    "by rates": lambda present, **more: remove_by_rates(present, {"text": 0.9, "audio": 0.5}, generator(), **more),
    "monotone": lambda present, **more: remove_monotone(present, 0.5, generator(), NAMES, **more),
}


def test_presence_gives_the_modalities_of_every_sample():
    assert whole(3, incomplete=True) == {"0": NAMES, "1": ("text", "vision"), "2": NAMES}


@pytest.mark.parametrize("way", WAYS)
def test_samples_keep_a_part_of_their_modalities_in_the_same_order(way):
    before = whole(200, incomplete=True)
    after = WAYS[way](before)
    assert list(after) == list(before)
    assert all(names and set(names) <= set(before[sample]) for sample, names in after.items())
    assert after != before
    # In the order in which a sample's modalities came, whatever the order in which they are drawn.
    assert all(names == tuple(name for name in NAMES if name in names) for names in after.values())


@pytest.mark.parametrize("way", WAYS)
def test_a_restricted_table_holds_the_values_of_the_remaining_modalities(way):
    complete = table(200, incomplete=True)
    after = WAYS[way](presence(complete))
    thinned = restrict(complete, after)
    assert presence(thinned) == after
    text = thinned.inputs["text"]
    assert torch.equal(text.values[:, 0, 0], text.indices.float())
    assert text.valid is not None
    assert text.valid.shape == (len(text.indices), 2)


@pytest.mark.parametrize("way", WAYS)
def test_one_seed_gives_one_missingness(way):
    assert WAYS[way](whole(50)) == WAYS[way](whole(50))
    # The order in which a table holds its modalities changes nothing.
    turned = {sample: names[::-1] for sample, names in whole(50).items()}
    assert {sample: set(names) for sample, names in WAYS[way](turned).items()} == {
        sample: set(names) for sample, names in WAYS[way](whole(50)).items()
    }


@pytest.mark.parametrize("way", WAYS)
def test_only_the_samples_with_the_named_ids_lose_modalities(way):
    after = WAYS[way](whole(50), ids=[str(number) for number in range(25)])
    assert all(after[str(number)] == NAMES for number in range(25, 50))
    assert any(after[str(number)] != NAMES for number in range(25))
    with pytest.raises(InputError, match="Unknown sample 'x'"):
        WAYS[way](whole(50), ids=["x"])


@pytest.mark.parametrize(
    ("rate", "everything", "pair", "single"),
    [(0.3, 0.3025, 0.165, 0.0675), (0.5, 0.0625, 0.125, 0.1875), (0.7, 0, 0, 1 / 3), (0, 1, 0, 0)],
)
def test_the_shares_of_scenarios_follow_from_the_rate(rate, everything, pair, single):
    share_of = shares(remove_at_random(whole(20000), rate, generator()))
    assert share_of.get("text+audio+vision", 0) == pytest.approx(everything, abs=0.01)
    for name in ("text+audio", "text+vision", "audio+vision"):
        assert share_of.get(name, 0) == pytest.approx(pair, abs=0.01)
    for name in NAMES:
        assert share_of.get(name, 0) == pytest.approx(single, abs=0.01)


def test_the_removed_share_is_the_rate():
    thinned = remove_at_random(whole(10000), 0.3, generator())
    assert 1 - sum(len(names) for names in thinned.values()) / 30000 == pytest.approx(0.3, abs=0.01)


def test_the_true_rate_is_lower_where_samples_would_lose_all_modalities():
    # Three of three: one stays, so that two of three go at most.
    assert [true_rate(whole(4), rate) for rate in (0, 0.3, 0.5, 0.7, 1)] == pytest.approx([0, 0.3, 0.5, 2 / 3, 2 / 3])
    # One has three and loses .9 of them, the other two and loses .6: 1.5 of 5. From .5 on it is 1.5 and 1 of 5.
    assert true_rate(whole(2, incomplete=True), 0.3) == pytest.approx(0.3)
    assert true_rate(whole(2, incomplete=True), 0.5) == pytest.approx(0.5)
    assert true_rate(whole(2, incomplete=True), 0.6) == pytest.approx((1.8 + 1) / 5)
    thinned = remove_at_random(whole(10000, incomplete=True), 0.6, generator())
    assert 1 - sum(map(len, thinned.values())) / 25000 == pytest.approx((1.8 + 1) / 5, abs=0.01)


def test_a_modality_missing_at_a_rate_is_missing_at_every_higher_rate():
    steps = [remove_at_random(whole(200), rate, generator()) for rate in (0.1, 0.3, 0.5, 0.7)]
    for fuller, thinner in itertools.pairwise(steps):
        assert fuller != thinner
        assert all(set(names) <= set(fuller[sample]) for sample, names in thinner.items())


def test_samples_without_modalities_are_drawn_again():
    share_of = shares(remove_by_rates(whole(20000), dict.fromkeys(NAMES, 0.3), generator()))
    # (1 - .3)^3 = .343 of 1 - .3^3 = .973.
    assert share_of["text+audio+vision"] == pytest.approx(0.352518, abs=0.01)
    assert share_of["text+audio"] == pytest.approx(0.151079, abs=0.01)
    assert share_of["vision"] == pytest.approx(0.064748, abs=0.01)


def test_a_rate_of_1_removes_a_modality_from_all_samples():
    thinned = restrict(table(10), remove_by_rates(whole(10), {"audio": 1.0}, generator()))
    assert thinned.modalities == ("text", "vision")
    with pytest.raises(InputError, match=r"leave no modality to 0, 1, 2, \.\.\. \(10 in all\)"):
        remove_by_rates(whole(10), dict.fromkeys(NAMES, 1.0), generator())


def test_monotone_removal_removes_all_later_modalities():
    share_of = shares(remove_monotone(whole(20000), 0.5, generator(), order=["vision", "text", "audio"]))
    assert share_of["vision"] == pytest.approx(0.5, abs=0.01)
    assert share_of["text+vision"] == pytest.approx(0.25, abs=0.01)
    assert share_of["text+audio+vision"] == pytest.approx(0.25, abs=0.01)
    assert len(share_of) == 3
    with pytest.raises(InputError, match="must name each"):
        remove_monotone(whole(3), 0.5, generator(), order=["text"])


def test_monotone_removal_keeps_the_first_modality_of_a_sample():
    thinned = remove_monotone(whole(10, incomplete=True), 1.0, generator(), order=["audio", "text", "vision"])
    assert [thinned["0"], thinned["1"]] == [("audio",), ("text",)]


def test_a_modality_is_removed_from_all_or_from_named_samples():
    assert restrict(table(4), remove(whole(4), ["audio"])).modalities == ("text", "vision")
    thinned = remove(whole(4), ["audio", "text"], ids=["1", "3"])
    assert thinned == {"0": NAMES, "1": ("vision",), "2": NAMES, "3": ("vision",)}
    with pytest.raises(InputError, match="these would have none: 0"):
        remove(whole(4), NAMES, ids=["0"])
    with pytest.raises(InputError, match="Unknown modality 'sound'"):
        remove(whole(4), ["sound"])


def test_a_table_is_restricted_for_the_named_samples():
    thinned = restrict(table(4, incomplete=True), {"1": ["text", "audio"], "2": ["audio"]})
    assert presence(thinned) == {"0": NAMES, "1": ("text",), "2": ("audio",), "3": ("text", "vision")}
    assert differences(restrict(table(4), {}), table(4)) == []
    for wrong, line in (
        ({"x": NAMES}, "Unknown sample 'x'"),
        ({"1": ["x"]}, "Unknown modality 'x'"),
        ({"1": []}, "'1' has text, vision and would keep none"),
        ({"1": ["audio"]}, "'1' has text, vision and would keep audio"),
    ):
        with pytest.raises(InputError, match=line):
            restrict(table(2, incomplete=True), wrong)


@pytest.mark.parametrize("rate", [-0.1, 1.1, float("nan")])
def test_rates_are_probabilities(rate):
    with pytest.raises(InputError, match="between 0 and 1"):
        remove_at_random(whole(2), rate, generator())
