import pytest

from anysubset.errors import InputError, one_line, unknown


def test_an_unknown_name_is_told_with_the_nearest_one_and_all_choices():
    error = unknown("modality", "t1c", ["flair", "t1ce"])
    assert isinstance(error, InputError)
    assert str(error) == "Unknown modality 't1c'. Did you mean 't1ce'? Choose from: flair, t1ce."


def test_a_name_that_is_near_none_gets_the_choices_and_no_guess():
    assert str(unknown("method", "xyz", ["gmd", "full"])) == "Unknown method 'xyz'. Choose from: gmd, full."


def test_where_there_is_no_choice_the_error_says_so():
    assert str(unknown("option", "rule", [])) == "Unknown option 'rule'. Choose from: (none)."


def test_names_that_are_no_text_are_compared_as_text():
    assert str(unknown("label", 10, iter([1, 100]))) == "Unknown label 10. Did you mean '100'? Choose from: 1, 100."


def test_wrong_input_is_a_value_error():
    # So that a caller who knows nothing of this package catches it.
    assert issubclass(InputError, ValueError)


@pytest.mark.parametrize(
    ("said", "line"),
    [("one\n  two\r\n\tthree", "one two three"), ("", ""), ("as it is", "as it is")],
    ids=["lines", "nothing", "one line"],
)
def test_what_an_exception_says_is_put_on_one_line(said: str, line: str):
    assert one_line(RuntimeError(said)) == line
