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


def test_every_sample_is_tested_once_and_validated_once():
    found = folds(table(CLASSES), 5)
    assert [list(fold) for fold in found] == [["train", "val", "test"]] * 5
    for part in ("val", "test"):
        assert sorted(int(each) for fold in found for each in fold[part]) == list(range(30))
    for fold in found:
        assert sorted(int(each) for part in fold.values() for each in part) == list(range(30))
    assert [fold["test"] for fold in found[1:]] == [fold["val"] for fold in found[:-1]]


def test_classes_are_spread():
    for fold in folds(table(CLASSES), 5):
        assert sum(CLASSES[int(each)].item() for each in fold["test"]) == 2


def test_numbers_are_spread_by_thirds():
    target = torch.arange(30.0)
    for fold in folds(table(target), 5):
        assert sorted(int(each) // 10 for each in fold["test"]) == [0, 0, 1, 1, 2, 2]


@pytest.mark.parametrize("stratified", [True, False])
def test_groups_stay_together(stratified):
    for fold in folds(table(CLASSES, group=3), 5, stratified=stratified):
        owners = [{int(each) // 3 for each in part} for part in fold.values()]
        assert sum(map(len, owners)) == 10


def test_groups_may_be_torn_if_asked():
    some = folds(table(torch.arange(30.0), group=3), 5, grouped=False)
    assert any({int(each) // 3 for each in fold["test"]} & {int(each) // 3 for each in fold["train"]} for fold in some)


def test_folds_depend_on_the_seed_alone():
    assert folds(table(CLASSES), 5) == folds(table(CLASSES), 5) != folds(table(CLASSES), 5, seed=1)


def test_without_validation():
    assert [list(fold) for fold in folds(table(CLASSES), 2, val=False)] == [["train", "test"]] * 2


@pytest.mark.parametrize(
    ("given", "options", "line"),
    [
        (table(CLASSES), {"count": 2}, "2 folds leave nothing to train on; give 3 or more"),
        (table(CLASSES), {"count": 3, "grouped": True}, "no groups"),
        (table(CLASSES, group=15), {"count": 3}, "2 samples or groups cannot make 3 folds"),
        (table(torch.tensor([0] * 8 + [1] * 2)), {"count": 3}, "Class 1 has 2 samples or groups, too few"),
    ],
)
def test_faults_are_one_clear_line(given, options, line):
    with pytest.raises(InputError, match=line):
        folds(given, **options)
