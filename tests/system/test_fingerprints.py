"""Fingerprints of data: what differs is said by split, sample and part."""

import pytest

from anysubset.errors import InputError
from anysubset.system.fingerprints import differences, hash_of, read_fingerprints, split_hash, write_fingerprints

BEFORE = {
    "train": {"a": {"t1": "1", "t2": "2", "(label)": "3", "(group)": "A"}, "b": {"t1": "4", "(label)": "5"}},
    "test": {"c": {"t1": "6", "(label)": "7"}, "d": {"t1": "8", "(label)": "9"}},
}


def changed(split: str, sample: str, **parts: str | None) -> dict:
    new = {**BEFORE[split][sample], **parts}
    return {**BEFORE, split: {**BEFORE[split], sample: {name: value for name, value in new.items() if value}}}


@pytest.mark.parametrize(
    ("current", "lines"),
    [
        (BEFORE, []),
        ({**BEFORE, "external": {"e": {"t1": "1"}}}, []),
        (changed("train", "a", t2="x"), ["t2 of a in train"]),
        (changed("train", "a", t2=None), ["t2 of a in train is missing now"]),
        (changed("train", "b", t2="x"), ["t2 of b in train was missing"]),
        (changed("test", "c", t1="1"), ["t1 of c in test (now that of a in train)"]),
        (changed("train", "a", **{"(group)": "B"}), ["group of a in train"]),
        (changed("test", "c", **{"(label)": "x"}), ["label of c in test"]),
        ({"train": BEFORE["train"]}, ["c, d of test is not there now"]),
        ({"train": BEFORE["test"], "test": BEFORE["train"]}, None),
        (
            {**BEFORE, "test": dict(reversed(BEFORE["test"].items()))},
            ["the order of the samples in test"],
        ),
    ],
)
def test_what_differs_is_named(current, lines):
    if lines is None:
        lines = [
            "a, b of train is in test now",
            "c, d is new in train",
            "c, d of test is in train now",
            "a, b is new in test",
        ]
    assert differences(BEFORE, current) == lines


def test_many_samples_share_a_phrase():
    before = {"train": {str(number): {"x": "1"} for number in range(5)}}
    assert differences(before, {"train": {name: {"x": "2"} for name in before["train"]}}) == [
        "x of 0, 1, 2 and 2 more in train"
    ]


def test_an_unknown_hash_differs_from_none():
    assert differences(BEFORE, changed("test", "c", t1="")) != []  # The helper drops the part: it is missing.
    unread = {**BEFORE, "test": {**BEFORE["test"], "c": {"t1": "", "(label)": ""}}}
    assert differences(BEFORE, unread) == []
    assert differences(unread, BEFORE) == []


def test_the_hash_of_a_split_depends_on_values_alone():
    test = BEFORE["test"]
    assert split_hash(test) == split_hash(dict(reversed(test.items())))
    assert split_hash(test) == split_hash({**test, "c": {**test["c"], "(group)": "any"}})
    assert split_hash(test) != split_hash({**test, "c": {**test["c"], "t1": "0"}})


def test_hashes_are_those_of_blake2b():
    # b2sum -l 64, of the empty input and of "abc".
    assert hash_of() == "e4a6a0577479b2b4"
    assert hash_of(b"ab", b"c") == hash_of(b"abc") == "d8bb14d833d59559"


def test_a_file_is_read_back(tmp_path):
    path = tmp_path / "data.json"
    assert read_fingerprints(path) is None
    write_fingerprints(path, {"train": {"Zoë": {"t1": "1"}}})
    assert read_fingerprints(path) == {"train": {"Zoë": {"t1": "1"}}}
    path.write_text('{"version": 2}')
    with pytest.raises(InputError, match="written by a later version"):
        read_fingerprints(path)
