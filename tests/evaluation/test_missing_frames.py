"""Removing steps of sequences at random: how many stay, which ones, and how rows are named."""

import itertools

import numpy as np
import pytest
import torch

from anysubset.batches import Observed
from anysubset.errors import InputError
from anysubset.evaluation.missing_frames import row_names, share_of_others, without_frames
from anysubset.tables.table import Table


class Ready:
    """A data set of one prepared split."""

    def __init__(self, table: Table) -> None:
        self.ready = {"test": table}

    def prepare(self, split: str) -> None:
        """The split is prepared already."""


def sequences(*lengths: int, time: int = 10) -> Observed:
    """One sequence of ones for each length, padded at the end."""
    valid = torch.arange(time) < torch.tensor(lengths)[:, None]
    return Observed(torch.ones(len(lengths), time, 2).where(valid[..., None], 0), torch.arange(len(lengths)), valid)


def table_of(**inputs: Observed) -> Table:
    samples = max(int(observed.indices.max()) for observed in inputs.values()) + 1
    return Table(tuple(map(str, range(samples))), inputs, torch.zeros(samples))


def thinned(table: Table, rate: float, seed: int = 0) -> Table:
    return without_frames(table, rate, np.random.default_rng(seed))


def test_the_probability_of_the_other_steps_by_hand():
    # Of 4 steps at rate 0.5, 2 stay: one, and 1 of 3 others. Of 1 step there are no others. At rate 0.9, of 20 steps 2.
    assert share_of_others(torch.tensor([4, 1]), 0.5).tolist() == pytest.approx([1 / 3, 0])
    assert share_of_others(torch.tensor([20, 5]), 0.9).tolist() == pytest.approx([1 / 19, 0])


@pytest.mark.parametrize(("rate", "mean"), [(0.3, 7.0), (0.5, 5.0), (0.9, 1.0), (1.0, 1.0)])
def test_the_share_that_is_removed_is_the_rate(rate: float, mean: float):
    table = thinned(table_of(audio=sequences(*[10] * 2000)), rate)
    valid = table.inputs["audio"].valid
    assert valid is not None
    remaining = valid.sum(dim=1)
    # Standard error of the mean: at most 1.6 steps over the root of 2000.
    assert remaining.double().mean().item() == pytest.approx(mean, abs=0.12)
    assert remaining.min() >= 1
    # Every step is as likely as any other.
    assert valid.double().mean(dim=0).tolist() == pytest.approx([mean / 10] * 10, abs=0.05)


def test_a_removed_step_is_not_there():
    observed = sequences(*[10, 3] * 50)
    inputs = thinned(table_of(audio=observed), 0.5).inputs["audio"]
    assert inputs.valid is not None
    assert observed.valid is not None
    assert not (inputs.valid & ~observed.valid).any()
    # The remaining steps have their values, at their places; removed ones are padding, whose values are 0.
    assert torch.equal(inputs.values, observed.values.where(inputs.valid[..., None], 0))
    assert 0 < inputs.valid.sum() < observed.valid.sum()
    # Without any missing steps nothing changes.
    same = thinned(table_of(audio=observed), 0.0).inputs["audio"]
    assert same.valid is not None
    assert torch.equal(same.valid, observed.valid)
    assert torch.equal(same.values, observed.values)


def test_a_step_that_is_missing_at_one_rate_is_missing_at_all_higher_rates():
    table = table_of(audio=sequences(*range(1, 11)), text=sequences(*[7] * 10))
    for name in ("audio", "text"):
        steps = [thinned(table, rate).inputs[name].valid for rate in (0.1, 0.3, 0.5, 0.7, 0.9)]
        for less, more in itertools.pairwise(steps):
            assert less is not None
            assert more is not None
            assert not (more & ~less).any()
    other = thinned(table, 0.5, seed=1).inputs["text"].valid
    assert not torch.equal(other, thinned(table, 0.5).inputs["text"].valid)


def test_token_ids_lose_steps_and_vectors_and_waveforms_do_not():
    valid = torch.ones(40, 10, dtype=torch.bool)
    inputs = {
        "text": Observed(torch.full((40, 10), 5), torch.arange(40), valid),
        "audio": Observed(torch.ones(40, 10), torch.arange(40), valid),
        "vision": Observed(torch.ones(40, 3), torch.arange(40)),
    }
    table = thinned(table_of(**inputs), 0.5)
    assert set(table.inputs["text"].values.unique().tolist()) == {0, 5}
    assert table.inputs["audio"] is inputs["audio"]
    assert table.inputs["vision"] is inputs["vision"]


def test_rows_are_named_by_the_share_that_is_removed():
    # At rate 0.5 there stay 2 of 4 steps and the only one of the other, in all 3 of 5; at rate 0.9 one of each, 2 of 5.
    dataset = Ready(table_of(audio=sequences(4, 1)))
    assert row_names(dataset, "test", [0.0, 0.5, 0.9]) == {"frames:0": 0.0, "frames:0.4": 0.5, "frames:0.6": 0.9}  # type: ignore[arg-type]
    with pytest.raises(InputError, match=r"Rates 0\.8, 0\.9 give frames:0\.6 twice"):
        row_names(dataset, "test", [0.8, 0.9])  # type: ignore[arg-type]
    with pytest.raises(InputError, match=r"lies between 0 and 1; this is 1\.5"):
        row_names(dataset, "test", [1.5])  # type: ignore[arg-type]
    vectors = Ready(table_of(vision=Observed(torch.ones(4, 3), torch.arange(4))))
    with pytest.raises(InputError, match="none of these modalities is one: leave out --frames"):
        row_names(vectors, "test", [0.5])  # type: ignore[arg-type]
