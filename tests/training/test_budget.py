import pytest

from anysubset.errors import InputError
from anysubset.experiments.train_settings import TrainSettings
from anysubset.methods.method import Stage
from anysubset.training.budget import affordable_steps, check_stages, divide_steps, duration, estimate, steps_by_stage


def fault(function, *arguments) -> str:
    with pytest.raises(InputError) as caught:
        function(*arguments)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_steps_are_divided_by_share_and_their_sum_is_exact():
    assert divide_steps(100, {"only": 1.0}) == {"only": 100}
    assert divide_steps(100, {"a": 0.25, "b": 0.75}) == {"a": 25, "b": 75}
    # 3.33 each: the step that is left goes to the first.
    assert divide_steps(10, {"a": 1, "b": 1, "c": 1}) == {"a": 4, "b": 3, "c": 3}
    # 1.75 and 5.25.
    assert divide_steps(7, {"a": 1, "b": 3}) == {"a": 2, "b": 5}


def test_a_budget_allows_whole_steps_at_their_mean_cost():
    # A mean of 100: 9.5 steps.
    assert affordable_steps(950.0, {"only": 1.0}, {"only": [50, 150]}) == {"only": 9}


def test_the_steps_of_a_stage_depend_on_its_share_and_its_own_cost():
    # 600 at 100 a step, 400 at 50 a step.
    assert affordable_steps(1000.0, {"a": 3, "b": 2}, {"a": [100, 100], "b": [50]}) == {"a": 6, "b": 8}
    # A stage that was not counted is as costly as the others: 400 at 100 a step.
    assert affordable_steps(1000.0, {"a": 3, "b": 2}, {"a": [100, 100]}) == {"a": 6, "b": 4}


def test_a_budget_below_the_cost_of_a_step_is_refused():
    line = fault(affordable_steps, 100.0, {"a": 1, "b": 1}, {"a": [10], "b": [60]})
    assert (
        line
        == "train.flops 100 does not allow a single step of stage 'b': its share is 50, and a step takes 60 operations."
    )
    assert fault(affordable_steps, 1e30, {"a": 1}, {"a": [10]}) == (
        "train.flops 1e+30 allows 1e+29 steps of stage 'a', each of 10 operations, and a stage may have at most 1e+12: "
        "set it lower."
    )
    assert "no operations were counted" in fault(affordable_steps, 100.0, {"a": 1}, {"a": []})


def test_steps_of_a_stage_come_from_settings_then_from_the_method_then_from_its_share():
    shares = {"first": 1.0, "second": 1.0, "third": 2.0}
    settings = TrainSettings(steps=80, stages={"first": {"steps": 7}, "third": {"lr": 0.1}})
    # By share 20, 20 and 40.
    assert steps_by_stage(settings, shares) == {"first": 7, "second": 20, "third": 40}
    # The settings come before the method.
    assert steps_by_stage(settings, shares, {"first": 3, "second": 4}) == {"first": 7, "second": 4, "third": 40}
    assert "train.steps 2 leaves no step to stage 'second'; set it higher." in fault(
        steps_by_stage, TrainSettings(steps=2), shares
    )
    budget = TrainSettings(flops=80.0)
    assert steps_by_stage(budget, shares, {"first": 9}, {"first": [10]}) == {"first": 2, "second": 2, "third": 4}


def test_a_stage_that_the_method_does_not_have_is_refused():
    settings = TrainSettings(stages={"pretraning": {"lr": 0.1}})
    line = fault(check_stages, settings, (Stage("pretraining", 0.5), Stage("training", 0.5)))
    assert "train.stages.pretraning: Unknown stage of the method 'pretraning'. Did you mean" in line
    assert "'pretraining'" in line


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (0.0, "0 s"),
        (59.4, "59 s"),
        (59.6, "1 min"),
        (3599, "1 h"),
        (3600, "1 h"),
        (12_000, "3 h 20 min"),
        (86_399, "1 d"),
        (86_400 + 3600, "1 d 1 h"),
    ],
)
def test_durations_as_text(seconds, words):
    assert duration(seconds) == words


def test_an_estimate_contains_time_and_memory():
    assert estimate(2000, 0.36, 3_100_000_000) == "about 12 min for 2000 steps, 3.1 GB at most so far"
    assert estimate(1, 2.0, 52_000_000) == "about 2 s for 1 step, 52 MB at most so far"
    assert estimate(10, 1.0, None) == "about 10 s for 10 steps"
