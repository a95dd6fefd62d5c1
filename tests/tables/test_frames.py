"""Frames are joined by the labels of their rows, or refused: never by position if the labels differ."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from anysubset import AnySubsetClassifier, AnySubsetRegressor
from anysubset.errors import InputError
from anysubset.tables.frames import in_one_order

pandas = pytest.importorskip("pandas")

NAMES = ["d", "a", "c", "b"]


def frame(labels: list, start: int = 0):
    """A row for each label that starts with the position of the label in `NAMES`, or with the label itself."""
    rows = [[NAMES.index(label) if label in NAMES else label, start] for label in labels]
    return pandas.DataFrame(rows, index=labels, columns=["x", "y"])


def firsts(values) -> list:
    """The first numbers of the rows; None for rows of NaN."""
    return [None if np.isnan(number) else int(number) for number in values.to_numpy(float)[:, 0]]


def test_frames_follow_the_order_of_a_target_with_labels():
    joined = in_one_order({"text": frame(NAMES), "audio": frame(NAMES[::-1])}, pandas.Series(range(4), list("abcd")))
    # y: a b c d, which are 1, 3, 2 and 0 in NAMES.
    assert firsts(joined["text"]) == firsts(joined["audio"]) == [1, 3, 2, 0]
    single = in_one_order(frame(NAMES), pandas.Series(range(4), list("abcd")))
    assert firsts(single) == [1, 3, 2, 0]


def test_a_frame_that_lacks_samples_follows_the_one_that_has_all_and_gets_rows_of_nan():
    for y in (None, np.arange(4)):
        joined = in_one_order({"audio": frame(["b", "d"]), "text": frame(NAMES)}, y)
        assert firsts(joined["text"]) == [0, 1, 2, 3]
        assert firsts(joined["audio"]) == [0, None, None, 3]


def test_frames_without_labels_of_their_own_are_joined_by_position():
    numbered, array = pandas.DataFrame({"x": [5, 6, 7, 8]}), np.ones((4, 2))
    joined = in_one_order({"text": frame(NAMES), "audio": numbered, "vision": array}, pandas.Series([1, 0, 1, 0]))
    assert firsts(joined["audio"]) == [5, 6, 7, 8]
    assert firsts(joined["text"]) == [0, 1, 2, 3]
    assert joined["vision"] is array
    assert in_one_order(array) is array


def test_the_same_labels_in_the_same_order_may_be_repeated_as_in_a_bootstrap():
    drawn = ["a", "a", "b", "d"]
    joined = in_one_order({"text": frame(drawn), "audio": frame(drawn)}, pandas.Series(range(4), drawn))
    assert firsts(joined["text"]) == [1, 1, 3, 0]


def test_rows_of_a_mask_are_joined_by_their_numbers():
    whole = pandas.DataFrame({"x": [0.0, 1, 2, 3]})
    joined = in_one_order({"text": whole, "audio": whole[whole.x % 2 == 1]})
    assert firsts(joined["audio"]) == [None, 1, None, 3]


def test_labels_of_several_levels_are_joined():
    labels = pandas.MultiIndex.from_tuples([("p1", 0), ("p1", 1), ("p2", 0)])
    text = pandas.DataFrame({"x": [0.0, 1, 2]}, index=labels)
    assert firsts(in_one_order({"text": text, "audio": text.iloc[[2, 0]]})["audio"]) == [0, None, 2]


REVERSED = {"text": frame(NAMES), "audio": frame(NAMES[::-1])}
APART = {"text": frame(["a"]), "audio": frame(["b"])}
REFUSED = [
    (REVERSED, None, "text and audio hold the same samples in different orders"),
    (REVERSED, np.arange(4), "give y as a series with these labels, or order"),
    ({"text": frame(["a", "b"]), "audio": frame(["c", "d"])}, None, "No frame of X has all of the 4 samples"),
    ({"text": frame(["a", "a", "b"]), "audio": frame(["a", "b", "c"])}, None, "text has labels more than once ('a')"),
    (frame(["a", "a", "b"]), pandas.Series([1, 2, 3], ["a", "b", "a"]), "labels more than once"),
    (frame(NAMES), pandas.Series([0, 1, 2], ["a", "b", "c"]), "X has samples that y lacks: 'd'"),
    (frame(["a", "b"]), pandas.Series([0, 1, 2], ["a", "b", "c"]), "X lacks samples of y: 'c'"),
    (APART, pandas.Series([0, 1, 2], ["a", "b", "c"]), "X lacks samples of y: 'c'"),
    (frame([3, 1, 0, 2]), pandas.Series([0, 1, 0, 1]), "one of them has the default labels"),
    ({"text": frame([0, 1, 2]).reset_index(drop=True), "audio": frame([2, 0, 1])}, None, "in different orders"),
    (frame([30, 10, 20]), pandas.Series([0, 1, 0]), "X has samples that y lacks"),
    ({"text": frame(["1", "2"]), "audio": frame([2, 1]).set_axis([5, 6])}, None, "No frame of X has all of the 4"),
]


@pytest.mark.parametrize(("X", "y", "line"), REFUSED)
def test_labels_that_leave_a_doubt_are_refused_in_one_line(X, y, line):  # noqa: N803
    with pytest.raises(InputError) as caught:
        in_one_order(X, y)
    assert line in str(caught.value)
    assert "\n" not in str(caught.value)


@settings(deadline=None)
@given(st.permutations(NAMES), st.permutations(NAMES), st.permutations(NAMES))
def test_any_orders_are_joined_by_label(first, second, labels):
    joined = in_one_order({"text": frame(first), "audio": frame(second)}, pandas.Series(range(4), labels))
    assert firsts(joined["text"]) == firsts(joined["audio"]) == [NAMES.index(label) for label in labels]


@pytest.mark.parametrize("kind", [AnySubsetClassifier, AnySubsetRegressor])
def test_estimators_train_predict_and_score_alike_in_any_order_of_the_rows(kind):
    generator = np.random.default_rng(0)
    names = [f"s{number}" for number in range(24)]
    y = pandas.Series(np.arange(24) % 2, names)
    text = pandas.DataFrame(generator.normal(size=(24, 3)), index=names, columns=list("abc"))
    audio = pandas.DataFrame(generator.normal(size=(24, 2)) + y.to_numpy()[:, None], index=names, columns=list("de"))
    mixed = {"text": text.sample(frac=1, random_state=1), "audio": audio.sample(frac=1, random_state=2)}
    model = kind(steps=3, width=4, random_state=0, device="cpu")
    expected = model.fit({"text": text, "audio": audio}, y).scenario_scores({"text": text, "audio": audio}, y)
    score = model.score({"text": text, "audio": audio}, y)
    assert model.fit(mixed, y).scenario_scores(mixed, y) == expected
    assert model.score(mixed, y) == score
    with pytest.raises(InputError, match="in different orders"):
        model.predict(mixed)
    few = audio.iloc[[5, 3]]
    assert model.predict({"text": text, "audio": few}).shape == (24,)
    with pytest.raises(InputError, match="in different orders"):
        model.fit(mixed, y.to_numpy())
    columns = {"text": list("abc"), "audio": list("de")}
    grouped = kind(modalities=columns, steps=3, width=4, random_state=0, device="cpu")
    whole = text.join(audio)
    first = grouped.fit(whole, y).scenario_scores(whole, y)
    assert grouped.fit(whole.sample(frac=1, random_state=3), y).scenario_scores(whole, y) == first


def test_estimators_take_the_columns_of_frames_by_name():
    generator = np.random.default_rng(0)
    text = pandas.DataFrame(generator.normal(size=(24, 3)), columns=["a", "b", "c"])
    audio = pandas.DataFrame(generator.normal(size=(24, 2)))
    model = AnySubsetClassifier(steps=3, width=4, random_state=0, device="cpu")
    model.fit({"text": text, "audio": audio}, np.arange(24) % 2)
    expected = model.predict_proba({"text": text, "audio": audio})
    assert np.array_equal(model.predict_proba({"text": text[["c", "a", "b"]], "audio": audio[[1, 0]]}), expected)
    for other in (text[["a", "b"]], text.rename(columns={"b": "d"}), text.assign(d=1.0)):
        with pytest.raises(InputError, match=r"text (lacks|has) the columns '[bcd]'"):
            model.predict({"text": other})
    with pytest.raises(InputError, match="audio lacks the columns '1' and has the columns '5'"):
        model.predict({"audio": audio.rename(columns={1: 5})})
    # Arrays have no names, and are taken by position.
    assert np.array_equal(model.predict_proba({"text": text.to_numpy(), "audio": audio.to_numpy()}), expected)


class Unlabelled:
    """A frame with names of columns and without labels of rows, as those of polars are."""

    def __init__(self, values: np.ndarray, columns: str) -> None:
        self.values, self.columns = values, list(columns)

    def __array__(self, dtype=None, copy=None) -> np.ndarray:
        return self.values


def test_frames_without_labels_of_rows_are_joined_by_position_and_their_columns_by_name():
    values = np.random.default_rng(0).normal(size=(24, 3))
    model = AnySubsetClassifier(steps=3, width=4, random_state=0, device="cpu")
    model.fit({"text": Unlabelled(values, "abc"), "audio": values[:, :2]}, np.arange(24) % 2)
    expected = model.predict_proba({"text": Unlabelled(values, "abc")})
    assert np.array_equal(model.predict_proba({"text": Unlabelled(values[:, [2, 0, 1]], "cab")}), expected)


def test_missing_values_of_pandas_own_types_are_missing():
    generator = np.random.default_rng(0)
    text, audio = generator.normal(size=(24, 3)), generator.normal(size=(24, 2))
    audio[:6] = np.nan
    y = np.arange(24) % 2
    model = AnySubsetClassifier(steps=3, width=4, random_state=0, device="cpu").fit({"text": text, "audio": audio}, y)
    own_types = pandas.DataFrame(audio).convert_dtypes()
    assert own_types.isna().sum().tolist() == [6, 6]
    expected = model.predict_proba({"text": text, "audio": audio})
    assert np.array_equal(model.predict_proba({"text": text, "audio": own_types}), expected)


def test_a_masked_target_is_refused():
    y = np.ma.masked_array(np.arange(24) % 2, mask=np.arange(24) == 3)
    with pytest.raises(InputError, match="y is masked for 1 samples"):
        AnySubsetClassifier(steps=1).fit({"text": np.ones((24, 2))}, y)
