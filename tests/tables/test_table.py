import pytest
import torch
from torch import Tensor

from anysubset.batches import Observed
from anysubset.errors import InputError
from anysubset.tables.table import Table, differences, torn_groups


def observed(values, rows, valid=None) -> Observed:
    """A modality from lists."""
    steps = None if valid is None else torch.as_tensor(valid, dtype=torch.bool)
    return Observed(torch.as_tensor(values, dtype=torch.float32), torch.tensor(rows), steps)


def table(**changes) -> Table:
    """Samples a, b, c: text of a and c, one and two steps long; audio of b and c."""
    parts = {
        "ids": ("a", "b", "c"),
        "inputs": {
            "text": observed([[[1.0], [0.0]], [[2.0], [3.0]]], [0, 2], [[1, 0], [1, 1]]),
            "audio": observed([[4.0, 5.0], [6.0, 7.0]], [1, 2]),
        },
        "target": torch.tensor([0.5, -1.0, 2.0]),
        "groups": ("v", "v", "w"),
        "splits": {"train": ("a", "b"), "test": ("c",)},
    }
    return Table(**(parts | changes))


def text(values, valid=((1, 0), (1, 1)), rows=(0, 2)) -> dict[str, Observed]:
    """The inputs with another text."""
    return {**table().inputs, "text": observed(values, list(rows), valid)}


def test_a_table_knows_its_length_modalities_and_kind_of_target():
    whole = table()
    assert (len(whole), whole.modalities, whole.regression) == (3, ("text", "audio"), True)
    assert not table(target=torch.tensor([0, 1, 1])).regression


def test_samples_are_selected_in_the_order_of_the_ids():
    selected = table().select(["c", "b"])
    assert selected.ids == ("c", "b")
    assert selected.target.tolist() == [2.0, -1.0]
    assert selected.groups == ("w", "v")
    assert selected.splits == {"train": ("b",), "test": ("c",)}
    assert selected.inputs["text"].indices.tolist() == [0]
    assert selected.inputs["text"].values.tolist() == [[[2.0], [3.0]]]
    assert selected.inputs["text"].valid is not None
    assert selected.inputs["audio"].indices.tolist() == [0, 1]
    assert selected.inputs["audio"].values.tolist() == [[6.0, 7.0], [4.0, 5.0]]


def test_a_modality_that_no_selected_sample_has_has_no_key():
    assert table().select(["a"]).modalities == ("text",)
    assert table().split("train").modalities == ("text", "audio")


def test_selecting_everything_changes_nothing():
    assert differences(table().select("abc"), table()) == []


@pytest.mark.parametrize(
    ("ids", "line"), [(["a", "a"], "more than once: a"), (["x"], "Unknown sample 'x'"), ([], "at least")]
)
def test_unknown_samples_are_refused(ids, line):
    with pytest.raises(InputError, match=line):
        table().select(ids)


def test_an_unknown_split_is_refused():
    with pytest.raises(InputError, match="Unknown split 'val'"):
        table().split("val")
    with pytest.raises(InputError, match="Unknown split 'val'"):
        table(splits=None).split("val")


def test_groups_in_two_splits_are_listed():
    assert torn_groups(table()) == []
    assert torn_groups(table(splits={"train": ("a",), "test": ("b", "c")})) == ["v"]
    assert torn_groups(table(groups=None)) == torn_groups(table(splits=None)) == []


FAULTS = {
    "more than once: a": {"ids": ("a", "b", "a")},
    "target of shape (2,)": {"target": torch.tensor([0.5, 1.0])},
    "not torch.float64": {"target": torch.zeros(3, dtype=torch.float64)},
    "NaN or infinite for 1 samples": {"target": torch.tensor([0.5, torch.nan, 1.0])},
    "Classes count from 0; the least is -1": {"target": torch.tensor([0, -1, 1])},
    "with 1 groups": {"groups": ("v",)},
    "'a' in two splits: 'train' and 'test'": {"splits": {"train": ("a", "b"), "test": ("a",)}},
    "'a' twice in split 'train'": {"splits": {"train": ("a", "a")}},
    "empty split: 'val'": {"splits": {"train": ("a",), "val": ()}},
    "no sample has: x": {"splits": {"train": ("a", "x")}},
    "Call the split 'valid' 'val'": {"splits": {"train": ("a",), "valid": ("b",)}},
    "indices outside 0 to 2, those of the table's samples": {
        "inputs": text([[[1.0], [0.0]], [[2.0], [3.0]]], rows=(0, 3))
    },
    "1 NaN or infinite": {"inputs": text([[[1.0], [0.0]], [[2.0], [torch.inf]]])},
    "1 samples without a real step": {"inputs": text([[[0.0], [0.0]], [[2.0], [3.0]]], [[0, 0], [1, 1]])},
    "in steps that are not real": {"inputs": text([[[1.0], [9.0]], [[2.0], [3.0]]])},
    "valid is torch.bool (2, 1)": {"inputs": text([[[1.0], [0.0]], [[2.0], [3.0]]], [[1], [1]])},
    "text: sequences and token ids need `valid`": {"inputs": text([[[1.0], [0.0]], [[2.0], [3.0]]], None)},
    "which has no values": {"inputs": text(torch.zeros(0, 2, 1), torch.zeros(0, 2), ())},
    "of 1 dimensions": {"inputs": text([1.0, 2.0], None)},
    "these have none: b": {"inputs": {"text": table().inputs["text"]}},
}


@pytest.mark.parametrize("line", FAULTS)
def test_faults_are_one_clear_line(line: str, fault):
    assert line in fault(table, **FAULTS[line])


def test_a_table_needs_samples(fault):
    assert "at least one sample" in fault(table, ids=(), target=torch.zeros(0), inputs={}, groups=None, splits=None)


def test_token_ids_and_images_are_modalities():
    tokens = Observed(torch.tensor([[101, 0]]), torch.tensor([0]), torch.tensor([[True, False]]))
    image = Observed(torch.ones(3, 1, 2, 2), torch.arange(3))
    assert table(inputs={"text": tokens, "image": image}).modalities == ("text", "image")


def test_differences_are_found_by_name():
    changed: dict[str, Tensor] = {"target": torch.tensor([0.5, -1.0, 2.5])}
    assert differences(table(), table(**changed)) == ["target"]
    assert differences(table(), table(groups=None, splits=None)) == ["groups", "splits"]
    assert differences(table(), table(inputs=text([[[1.0], [0.0]], [[2.0], [4.0]]]))) == ["text.values"]
    assert differences(table(), table(inputs={**table().inputs, "more": observed([[1.0]], [0])})) == [
        "modalities",
        "more",
    ]


def test_halves_of_letters_are_refused_in_every_text():
    for part in (
        {"ids": ("a", "\ud800", *map(str, range(10)))[: len(table())]},
        {"groups": ("\udfff",) * len(table())},
    ):
        with pytest.raises(InputError, match=f"The {next(iter(part))} hold .*half of a letter"):
            table(**part)
