"""Learning rate schedules: poly, cosine, linear, constant, step and plateau, each with linear warm-up."""

import math
from dataclasses import dataclass

from anysubset.experiments.train_settings import TrainSettings

POWER = 0.9
THRESHOLD = 1e-4  # Relative. A smaller gain than this is no improvement, as in torch's ReduceLROnPlateau.


def learning_rate_factor(settings: TrainSettings, step: int, steps: int) -> float:
    """Factor of the peak learning rate in one step.

    The schedule "plateau" depends on the validation scores as well: its factor is this one times `Plateau.factor`.

    Args:
        settings: of the stage; they name the schedule and its options.
        step: number of steps done before in the stage, from 0 to `steps` - 1.
        steps: number of all steps of the stage.

    >>> [round(learning_rate_factor(TrainSettings(schedule="cosine"), step, 4), 3) for step in range(4)]
    [1.0, 0.854, 0.5, 0.146]
    """
    warm = min(1.0, (step + 1) / settings.warmup) if settings.warmup else 1.0
    done = step / steps
    match settings.schedule:
        case "poly":
            return warm * math.pow(1 - done, POWER)
        case "cosine":
            return warm * ((1 + math.cos(math.pi * done)) / 2)
        case "linear":
            return warm * min(1.0, 2 * (1 - done))
        case "step":
            assert settings.step_every is not None  # The settings check it.
            return warm * settings.step_factor ** (step // settings.step_every)
        case _:
            return warm


@dataclass
class Plateau:
    """Factor of the learning rate that falls when validation stops improving; 1 under any other schedule.

    Its fields are plain numbers: a checkpoint stores `asdict(plateau)`, and `Plateau(**stored)` restores it. For
    positive scores it behaves like torch's ReduceLROnPlateau.

    factor: multiplies the learning rate.
    best: best validation score so far.
    waited: number of validations since the best one, or since the factor was last lowered.
    """

    factor: float = 1.0
    best: float | None = None
    waited: int = 0

    def update(self, settings: TrainSettings, score: float, more_is_better: bool) -> None:
        """Add one validation score, and lower the factor after more than `plateau_patience` without improvement."""
        if settings.schedule != "plateau":
            return
        if not math.isnan(score) and (self.best is None or improves(score, self.best, more_is_better)):
            self.best, self.waited = score, 0
            return
        self.waited += 1
        if self.waited > settings.plateau_patience:
            self.factor *= settings.plateau_factor
            self.waited = 0


def improves(score: float, best: float, more_is_better: bool) -> bool:
    """True if a score is better than the best one by more than the threshold."""
    margin = THRESHOLD * abs(best)
    return score > best + margin if more_is_better else score < best - margin
