import json
import math
from dataclasses import asdict

import pytest
import torch

from anysubset.experiments.train_settings import TrainSettings
from anysubset.training.schedules import Plateau, learning_rate_factor


def factors(steps: int, **settings) -> list[float]:
    return [learning_rate_factor(TrainSettings(**settings), step, steps) for step in range(steps)]


def test_poly_falls_as_a_power_of_the_remaining_share_of_steps():
    assert factors(4, schedule="poly") == pytest.approx([1, 0.75**0.9, 0.5**0.9, 0.25**0.9])


def test_cosine_falls_along_half_a_wave():
    assert factors(3, schedule="cosine") == pytest.approx([1, 0.75, 0.25])  # (1 + cos 60°) / 2, (1 + cos 120°) / 2


def test_linear_stays_for_half_of_the_steps_and_falls_evenly_to_0():
    assert factors(6, schedule="linear") == pytest.approx([1, 1, 1, 1, 2 / 3, 1 / 3])


def test_constant_stays():
    assert factors(3, schedule="constant") == [1, 1, 1]


def test_step_falls_every_n_steps():
    assert factors(5, schedule="step", step_every=2, step_factor=0.5) == [1, 1, 0.5, 0.5, 0.25]


@pytest.mark.parametrize(
    "settings", [{"schedule": "constant"}, {"schedule": "poly"}, {"schedule": "step", "step_every": 3}]
)
def test_warm_up_rises_evenly_from_0_under_any_schedule(settings):
    warm, cold = factors(8, warmup=4, **settings), factors(8, **settings)
    rises = [0.25, 0.5, 0.75, 1, 1, 1, 1, 1]
    assert warm == pytest.approx([rise * factor for rise, factor in zip(rises, cold, strict=True)])


def test_the_mean_of_poly_approaches_its_integral():
    # The integral of x^0.9 from 0 to 1 is 1 / 1.9 = .526.
    assert sum(factors(10_000)) / 10_000 == pytest.approx(1 / 1.9, abs=1e-4)


# ------------------------------------------------------------------------------------------------------ plateau

ON_PLATEAU = TrainSettings(schedule="plateau", plateau_patience=2, plateau_factor=0.5)


def test_a_plateau_lowers_the_rate_after_more_validations_than_patience():
    plateau, seen = Plateau(), []
    for score in (1.0, 0.8, 0.9, 0.8, 0.85, 0.85, 0.7, 0.8):
        plateau.update(ON_PLATEAU, score, more_is_better=False)
        seen.append((plateau.factor, plateau.waited))
    # The third one after 0.8 that is no better lowers the rate; 0.7 is better.
    assert seen == [(1, 0), (1, 0), (1, 1), (1, 2), (0.5, 0), (0.5, 1), (0.5, 0), (0.5, 1)]
    assert plateau.best == 0.7


def test_if_more_is_better_a_plateau_is_where_the_score_does_not_rise():
    plateau = Plateau()
    for score in (0.5, 0.6, 0.6, 0.5, 0.55):
        plateau.update(ON_PLATEAU, score, more_is_better=True)
    assert plateau == Plateau(factor=0.5, best=0.6, waited=0)


@pytest.mark.parametrize("more_is_better", [False, True])
def test_the_plateau_schedule_equals_that_of_torch(more_is_better):
    # 0.99995 is no improvement on 1: less than the threshold of 1e-4.
    scores = [1.0, 0.99995, 1.00005, 1.1, 0.9, 0.9, 0.9, 0.91, 1.2, 0.89999, 0.5, 0.5, 1.3, 0.5, 0.5]
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
    reference = torch.optim.lr_scheduler.ReduceLROnPlateau(
        optimizer, "max" if more_is_better else "min", factor=0.5, patience=2
    )
    plateau = Plateau()
    for score in scores:
        reference.step(score)
        plateau.update(ON_PLATEAU, score, more_is_better)
        assert plateau.factor == optimizer.param_groups[0]["lr"]
    assert plateau.factor < 1


def test_a_restored_plateau_continues_like_the_original():
    scores = [1.0, 1.1, 1.2, 1.3, 0.9, 1.0, 1.0, 1.0]
    whole, plateau = Plateau(), Plateau()
    for score in scores:
        whole.update(ON_PLATEAU, score, more_is_better=False)
        plateau.update(ON_PLATEAU, score, more_is_better=False)
        plateau = Plateau(**json.loads(json.dumps(asdict(plateau))))
    assert plateau == whole == Plateau(factor=0.25, best=0.9, waited=0)


def test_nan_is_not_an_improvement():
    plateau = Plateau()
    for score in (math.nan, 1.0, math.nan, math.nan, math.nan):
        plateau.update(ON_PLATEAU, score, more_is_better=False)
    assert plateau == Plateau(factor=0.5, best=1.0, waited=0)


def test_under_another_schedule_the_plateau_does_nothing():
    plateau = Plateau()
    for score in [1.0] * 30:
        plateau.update(TrainSettings(), score, more_is_better=False)
    assert plateau == Plateau()
    assert factors(3, schedule="plateau", warmup=2) == [0.5, 1, 1]
