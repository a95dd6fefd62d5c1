import pytest
import torch

from anysubset.batches import Observed
from anysubset.errors import InputError
from anysubset.tables.folds import folds
from anysubset.tables.table import Table


def table(target: torch.Tensor, group: int | None = None) -> Table:
    """Samples with this target; groups of so many."""
    number = len(target)
    groups = None if group is None else tuple(f"g{row // group}" for row in range(number))
    inputs = {"x": Observed(torch.ones(number, 1), torch.arange(number))}
    return Table(tuple(map(str, range(number))), inputs, target, groups)


CLASSES = torch.tensor([0, 0, 1] * 10)


def test_every_sample_is_in_one_test_and_one_validation_part():
    parts = folds(table(CLASSES), 5)
    assert [list(fold) for fold in parts] == [["train", "val", "test"]] * 5
    for split in ("val", "test"):
        assert sorted(int(sample) for fold in parts for sample in fold[split]) == list(range(30))
    for fold in parts:
        assert sorted(int(sample) for part in fold.values() for sample in part) == list(range(30))
    assert [fold["test"] for fold in parts[1:]] == [fold["val"] for fold in parts[:-1]]


def test_folds_are_stratified_by_class():
    for fold in folds(table(CLASSES), 5):
        assert sum(CLASSES[int(sample)].item() for sample in fold["test"]) == 2


def test_folds_are_stratified_by_tercile_of_the_target():
    target = torch.arange(30.0)
    for fold in folds(table(target), 5):
        assert sorted(int(sample) // 10 for sample in fold["test"]) == [0, 0, 1, 1, 2, 2]


@pytest.mark.parametrize("stratified", [True, False])
def test_folds_keep_groups_together(stratified):
    for fold in folds(table(CLASSES, group=3), 5, stratified=stratified):
        owners = [{int(sample) // 3 for sample in part} for part in fold.values()]
        assert sum(map(len, owners)) == 10


def test_folds_split_groups_on_request():
    ungrouped = folds(table(torch.arange(30.0), group=3), 5, grouped=False)
    groups = [{split: {int(sample) // 3 for sample in ids} for split, ids in fold.items()} for fold in ungrouped]
    assert any(fold["test"] & fold["train"] for fold in groups)


def test_folds_depend_on_the_seed_alone():
    assert folds(table(CLASSES), 5) == folds(table(CLASSES), 5) != folds(table(CLASSES), 5, seed=1)


def test_folds_without_validation_have_two_parts():
    assert [list(fold) for fold in folds(table(CLASSES), 2, val=False)] == [["train", "test"]] * 2


@pytest.mark.parametrize(
    ("data", "options", "line"),
    [
        (table(CLASSES), {"count": 2}, "2 folds leave nothing to train on; give 3 or more"),
        (table(CLASSES), {"count": 3, "grouped": True}, "no groups"),
        (table(CLASSES, group=15), {"count": 3}, "2 samples or groups cannot make 3 folds"),
        (table(torch.tensor([0] * 8 + [1] * 2)), {"count": 3}, "Class 1 has 2 samples or groups, too few"),
    ],
)
def test_faults_are_one_clear_line(data, options, line):
    with pytest.raises(InputError, match=line):
        folds(data, **options)
