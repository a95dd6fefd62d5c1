"""Options of the method that a file names, where the user names another method."""

import pytest

from anysubset.experiments.own_options import is_own_option, options_of_other_method


@pytest.fixture
def recipe(tmp_path):
    path = tmp_path / "recipe.yaml"
    path.write_text("method: {name: gmd, cases: random=3, width: 0.5}\ntrain: {steps: 4}\n")
    return path


def test_cases_are_an_option_of_the_method_and_width_of_the_network():
    assert is_own_option("method.cases")
    assert not is_own_option("method.width")
    assert not is_own_option("train.steps")


def test_another_method_is_trained_with_the_cases_of_the_file(recipe):
    assert options_of_other_method([recipe], {"method.name": "dropout"}) == {"method.cases": "random=3"}


@pytest.mark.parametrize(
    "overrides", [{}, {"method.name": "gmd"}, {"method.name": "dropout", "method.cases": "random=1"}]
)
def test_nothing_is_noted_of_the_same_method_or_of_options_that_are_set(recipe, overrides):
    assert options_of_other_method([recipe], overrides) == {}
