import pytest

from anysubset.errors import InputError, one_line, unknown


def test_an_unknown_name_is_reported_with_the_most_similar_one_and_all_choices():
    error = unknown("modality", "t1c", ["flair", "t1ce"])
    assert isinstance(error, InputError)
    assert str(error) == "Unknown modality 't1c'. Did you mean 't1ce'? Choose from: flair, t1ce."


def test_a_name_that_resembles_none_is_reported_with_the_choices_only():
    assert str(unknown("method", "xyz", ["gmd", "full"])) == "Unknown method 'xyz'. Choose from: gmd, full."


def test_an_empty_list_of_choices_is_reported():
    assert str(unknown("option", "rule", [])) == "Unknown option 'rule'. Choose from: (none)."


def test_names_that_are_not_text_are_compared_as_text():
    assert str(unknown("label", 10, iter([1, 100]))) == "Unknown label 10. Did you mean '100'? Choose from: 1, 100."


def test_wrong_input_is_a_value_error():
    # So that a caller who knows nothing of this package catches it.
    assert issubclass(InputError, ValueError)


@pytest.mark.parametrize(
    ("said", "line"),
    [("one\n  two\r\n\tthree", "one two three"), ("", ""), ("as it is", "as it is")],
    ids=["lines", "nothing", "one line"],
)
def test_the_message_of_an_exception_is_put_on_one_line(said: str, line: str):
    assert one_line(RuntimeError(said)) == line
