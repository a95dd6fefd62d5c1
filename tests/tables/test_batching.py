"""Batches of a table: what is drawn at which step, and whole groups that are never split."""

import itertools
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from anysubset.batches import Observed
from anysubset.datasets.table import create_dataset
from anysubset.errors import InputError
from anysubset.experiments.data_settings import DataSettings
from anysubset.experiments.settings import TaskSettings
from anysubset.system import processes
from anysubset.tables.batching import batch_of, draw_groups, draw_samples, members_of, packed, shared_groups, trimmed
from anysubset.tables.dataset import TableDataset
from anysubset.tables.table import Table

# Four videos with 3, 1, 2 and 2 utterances; the clips of v0 and v2 stand between those of others.
IDS = ("v0/0", "v2/0", "v0/1", "v1/0", "v3/0", "v2/1", "v0/2", "v3/1")
GROUPS = tuple(name[:2] for name in IDS)


def videos() -> Table:
    """Utterances with the vector `text`; the even rows also have `audio`."""
    numbers = torch.arange(8.0)[:, None]
    inputs = {
        "text": Observed(numbers, torch.arange(8)),
        "audio": Observed(numbers[::2], torch.arange(0, 8, 2)),
    }
    return Table(IDS, inputs, torch.arange(8.0), GROUPS)


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> TableDataset:
    """The videos for training, which the split lists backwards, and two other utterances for validation."""
    path = tmp_path_factory.mktemp("videos") / "videos.npz"
    present = np.array([True, False] * 4 + [True] * 2)
    np.savez(
        path,
        y=np.arange(10, dtype=np.float32),
        text=np.arange(10, dtype=np.float32)[:, None],
        audio=np.arange(10, dtype=np.float32)[:, None],
        audio_present=present,
        id=np.array([*IDS, "v4/0", "v4/1"]),
        group=np.array([*GROUPS, "v4", "v4"]),
    )
    (path.parent / "splits.json").write_text(
        f'{{"train": {list(reversed(IDS))}, "val": ["v4/0", "v4/1"]}}'.replace("'", '"')
    )
    made = create_dataset(DataSettings("table", str(path), splits="splits.json"), TaskSettings())
    assert isinstance(made, TableDataset)
    return made


# ----------------------------------------------------------------------------------------------------- samples


def test_a_batch_has_the_group_of_each_sample_and_no_key_for_a_modality_that_none_has():
    batch = batch_of(videos(), [2, 5])
    assert (batch.ids, batch.groups, batch.target.tolist()) == (("v0/1", "v2/1"), ("v0", "v2"), [2, 5])
    assert {name: observed.indices.tolist() for name, observed in batch.inputs.items()} == {
        "text": [0, 1],
        "audio": [0],
    }
    assert set(batch_of(videos(), [5]).inputs) == {"text"}
    assert batch.to("cpu").groups == ("v0", "v2")


def test_an_empty_batch_has_no_modality():
    batch = batch_of(videos(), [])
    assert (batch.ids, batch.groups, batch.inputs, batch.target.shape) == ((), (), {}, (0,))


def test_every_sample_is_drawn_once_an_epoch_and_draws_begin_anywhere():
    draws = draw_samples(8, 3, 0, 24)
    assert [sorted(draws[start : start + 8]) for start in (0, 8, 16)] == [list(range(8))] * 3
    assert draws[:8] != draws[8:16]
    assert draw_samples(8, 3, 5, 19) == draws[5:19]
    assert draw_samples(8, 4, 0, 8) != draws[:8]
    # The order of the first epoch is that of volumes: of the seed, 0 and the number of the epoch.
    assert draws[:8] == np.random.default_rng([3, 0, 0]).permutation(8).tolist()


def test_steps_that_are_padding_in_every_sample_are_cut():
    valid = torch.tensor([[True, False, False, False], [False, True, False, False]])
    shortened = trimmed(Observed(torch.arange(8.0).reshape(2, 4, 1), torch.arange(2), valid))
    assert shortened.values.flatten().tolist() == [0, 1, 4, 5]
    assert shortened.valid is not None
    assert shortened.valid.tolist() == [[True, False], [False, True]]


# ------------------------------------------------------------------------------------------------------ groups


def test_members_of_a_group_are_in_the_order_of_the_table():
    assert members_of(GROUPS, range(8)) == [[0, 2, 6], [1, 5], [3], [4, 7]]
    assert members_of(GROUPS, range(8, 0, -1)) == [[6, 2, 0], [5, 1], [3], [7, 4]]


def test_batches_hold_whole_groups_by_hand():
    sizes = [3, 2, 1, 2]
    assert list(packed([0, 1, 2, 3], sizes, batch=3)) == [[0], [1, 2], [3]]
    assert list(packed([2, 0, 3, 1], sizes, batch=4)) == [[2, 0], [3, 1]]
    # A group of 3 is a batch of its own where 2 are aimed at.
    assert list(packed([1, 0, 2], sizes, batch=2)) == [[1], [0], [2]]
    assert list(packed([], sizes, batch=2)) == []


def test_shares_have_about_equal_numbers_of_samples_by_hand():
    # The group of 3 goes to share 0, both groups of 2 to share 1, then the group of 1 to share 0: 4 and 4 samples.
    assert shared_groups([0, 1, 2, 3], sizes=[3, 2, 1, 2], shares=2) == [[0, 2], [1, 3]]
    assert shared_groups([1], sizes=[3, 2, 1, 2], shares=3) == [[1], [], []]


@settings(deadline=None, max_examples=60)
@given(st.lists(st.integers(1, 9), min_size=1, max_size=12), st.integers(1, 12), st.integers(0, 5), st.integers(1, 4))
def test_every_group_is_whole_and_drawn_once_an_epoch(sizes: list[int], batch: int, seed: int, shares: int):
    steps = list(draw_groups(sizes, batch, seed, 0, 3 * len(sizes)))
    assert len(steps) == 3 * len(sizes)
    assert all(len(groups) == 1 or sum(sizes[group] for group in groups) <= batch for groups in steps)
    drawn = list(itertools.chain.from_iterable(steps))
    for epoch in range(len(drawn) // len(sizes)):
        assert sorted(drawn[epoch * len(sizes) : (epoch + 1) * len(sizes)]) == list(range(len(sizes)))
    first = len(steps) // 2
    assert list(draw_groups(sizes, batch, seed, first, len(steps))) == steps[first:]
    for groups in steps:
        divided = shared_groups(groups, sizes, shares)
        assert len(divided) == shares
        assert sorted(itertools.chain.from_iterable(divided)) == sorted(groups)


def test_training_batches_of_groups_are_whole_in_order_and_the_same_after_a_resume(dataset: TableDataset):
    steps = list(dataset.training_batches("train", 3, 0, 0, 8, unit="group"))
    for batch in steps:
        assert batch.groups is not None
        for group, members in itertools.groupby(zip(batch.groups, batch.ids, strict=True), key=lambda pair: pair[0]):
            assert [name for _, name in members] == [name for name in IDS if name.startswith(group)]
        assert len(batch.ids) <= 3
    # By hand: whatever the order, groups of 3, 2, 2 and 1 make 3 or 4 batches of up to 3.
    epoch = next(count for count in (3, 4) if sum(len(batch.ids) for batch in steps[:count]) == 8)
    assert Counter(name for batch in steps[:epoch] for name in batch.ids) == Counter(IDS)
    again = list(dataset.training_batches("train", 3, 0, 5, 8, unit="group"))
    assert [batch.ids for batch in again] == [batch.ids for batch in steps[5:]]
    other = list(dataset.training_batches("train", 3, 1, 0, 8, unit="group"))
    assert [batch.ids for batch in other] != [batch.ids for batch in steps]


@pytest.mark.parametrize("parts", [1, 2])
def test_a_step_has_the_same_groups_on_1_2_and_4_processes(
    dataset: TableDataset, monkeypatch: pytest.MonkeyPatch, parts: int
):
    alone = list(dataset.training_batches("train", 5, 0, 0, 6, unit="group"))
    for world in (1, 2, 4):
        monkeypatch.setattr(processes, "world_size", lambda world=world: world)
        ranks = []
        for rank in range(world):
            monkeypatch.setattr(processes, "rank", lambda rank=rank: rank)
            ranks.append(list(dataset.training_batches("train", 5, 0, 0, 6, parts=parts, unit="group")))
        assert {len(batches) for batches in ranks} == {6 * parts}
        for step, whole in enumerate(alone):
            shares = [batch for batches in ranks for batch in batches[step * parts : (step + 1) * parts]]
            assert sorted(name for batch in shares for name in batch.ids) == sorted(whole.ids)
            owners = [{*(batch.groups or ())} for batch in shares]
            assert sum(map(len, owners)) == len(set().union(*owners))


def test_a_block_to_score_holds_one_whole_group_in_order(dataset: TableDataset):
    blocks = list(dataset.samples("train", unit="group"))
    # Groups by first appearance in the split, which begins with v3/1.
    assert [block.ids for block in blocks] == [
        ("v3/0", "v3/1"),
        ("v0/0", "v0/1", "v0/2"),
        ("v2/0", "v2/1"),
        ("v1/0",),
    ]
    assert blocks[1].groups == ("v0", "v0", "v0")
    # By hand: v3/0, v0/0, v0/1 and v0/2 stand in even rows of the file, and so have audio.
    assert blocks[0].inputs["audio"].indices.tolist() == [0]
    assert blocks[0].scenarios == [("text",), ("audio",), ("text", "audio")]
    parts = list(dataset.samples("train", ids=["v1/0", "v2/1", "v2/0"], unit="group"))
    assert [(part.ids, part.scenarios) for part in parts] == [
        (("v2/0", "v2/1"), [("text",)]),
        (("v1/0",), [("text",)]),
    ]
    with pytest.raises(InputError, match="1 of 1 groups are requested in part"):
        list(dataset.samples("train", ids=["v2/1"], unit="group"))


def test_processes_score_every_group_once(dataset: TableDataset, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(processes, "world_size", lambda: 2)
    owned = []
    for rank in range(2):
        monkeypatch.setattr(processes, "rank", lambda rank=rank: rank)
        owned.append(list(dataset.own_ids("train", "group")))
    assert owned == [["v3/0", "v3/1", "v2/0", "v2/1"], ["v0/0", "v0/1", "v0/2", "v1/0"]]


def test_a_table_without_groups_cannot_be_drawn_in_groups(tmp_path: Path):
    np.savez(tmp_path / "plain.npz", y=np.arange(9) % 3, text=np.ones((9, 2), np.float32))
    plain = create_dataset(DataSettings("table", str(tmp_path / "plain.npz"), folds=3), TaskSettings())
    with pytest.raises(InputError, match=r"whole groups, and .*plain.npz has none: add a column or array 'group', or"):
        next(iter(plain.training_batches("train", 2, 0, 0, 1, unit="group")))
