"""Numbers of steps: those of each stage, those that a budget of FLOPs allows, and estimates of time and memory."""

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from anysubset.errors import InputError, listed, unknown
from anysubset.experiments.train_settings import TrainSettings
from anysubset.system.numbers import MOST_STEPS

if TYPE_CHECKING:  # The command line needs this file before it loads torch.
    from anysubset.methods.method import Stage


def steps_by_stage(
    settings: TrainSettings,
    shares: Mapping[str, float],
    own: Mapping[str, int] | None = None,
    flops: Mapping[str, Sequence[int]] | None = None,
) -> dict[str, int]:
    """The number of steps of each stage of a method.

    Without a budget, a stage gets its share of `settings.steps`, unless its number of steps is set explicitly, which
    does not change the steps of other stages. With `settings.flops`, a stage gets the number of steps that its share of
    the budget allows, and default numbers of the method are ignored.

    Args:
        settings: of the run; a stage of `settings.stages` may set its `steps`.
        shares: stage -> its share; positive numbers, of which only the ratios matter.
        own: stage -> number of steps that the method sets by default in place of its share.
        flops: stage -> floating-point operations of each of its first steps (`training/cost.py` counts them).

    Raises:
        InputError: if a stage would have no step.
    """
    if settings.flops is not None:
        return affordable_steps(settings.flops, shares, flops or {})
    chosen = {stage: int(values["steps"]) for stage, values in settings.stages.items() if "steps" in values}
    steps = {**divide_steps(settings.steps, shares), **(own or {}), **chosen}
    for stage, count in steps.items():
        if count < 1:
            raise InputError(f"train.steps {settings.steps} leaves no step to stage {stage!r}; set it higher.")
    return steps


def check_stages(settings: TrainSettings, stages: Sequence["Stage"]) -> None:
    """Raise InputError if `train.stages` names a stage that the method does not have, or gives one useless settings.

    stages: of the method. One without gradients (`fit_steps`) may set `select` alone.
    """
    by_name = {stage.name: stage for stage in stages}
    for name, values in settings.stages.items():
        if name not in by_name:
            error = unknown("stage of the method", name, by_name)
            raise InputError(f"train.stages.{name}: {error}")
        if by_name[name].fit_steps and set(values) - {"select"}:
            useless = listed([setting for setting in values if setting != "select"])
            raise InputError(
                f"train.stages.{name}: this stage has no gradients and takes all training samples at once, so it has "
                f"no use for {useless}: leave them out; only select can be set."
            )


def divide_steps(steps: int, shares: Mapping[str, float]) -> dict[str, int]:
    """Divide steps by share, as evenly as whole numbers allow (largest remainders).

    >>> divide_steps(10, {"first": 1, "second": 2})
    {'first': 3, 'second': 7}
    """
    total = sum(shares.values())
    exact = {stage: steps * share / total for stage, share in shares.items()}
    divided = {stage: math.floor(value) for stage, value in exact.items()}
    # `sorted` is stable: of equal remainders the earlier stage comes first.
    by_remainder = sorted(exact, key=lambda stage: divided[stage] - exact[stage])
    for stage in by_remainder[: steps - sum(divided.values())]:
        divided[stage] += 1
    return divided


def affordable_steps(budget: float, shares: Mapping[str, float], flops: Mapping[str, Sequence[int]]) -> dict[str, int]:
    """The number of steps of each stage that its share of a budget allows, at the mean cost of its first steps.

    The cost of a stage without counted steps is the mean over all counted steps.

    Args:
        budget: floating-point operations of the whole run.
        shares: stage -> its share; positive numbers, of which only the ratios matter.
        flops: stage -> floating-point operations of each of its first steps.

    >>> affordable_steps(1000.0, {"first": 1, "second": 3}, {"first": [40, 60], "second": [100]})
    {'first': 5, 'second': 7}

    Raises:
        InputError: if no operations were counted, or the share of a stage allows no step or more than `MOST_STEPS`.
    """
    everything = [count for counts in flops.values() for count in counts]
    if not sum(everything):
        raise InputError("train.flops: no operations were counted in the first steps; set train.steps instead.")
    total = sum(shares.values())
    steps: dict[str, int] = {}
    for stage, share in shares.items():
        counts = flops.get(stage) or everything
        cost = sum(counts) / len(counts)
        steps[stage] = math.floor(budget * share / total / cost) if cost else 0
        if steps[stage] > MOST_STEPS:
            raise InputError(
                f"train.flops {budget:.3g} allows {steps[stage]:.3g} steps of stage {stage!r}, each of {cost:.3g} "
                f"operations, and a stage may have at most {MOST_STEPS:.0e}: set it lower."
            )
        if not steps[stage]:
            raise InputError(
                f"train.flops {budget:.3g} does not allow a single step of stage {stage!r}: its share is "
                f"{budget * share / total:.3g}, and a step takes {cost:.3g} operations."
            )
    return steps


def estimate(steps: int, seconds: float, most_bytes: int | None) -> str:
    """Remaining time and peak memory of a run, as text.

    >>> estimate(2000, 0.36, 3_100_000_000)
    'about 12 min for 2000 steps, 3.1 GB at most so far'

    Args:
        steps: number of remaining steps.
        seconds: time of one step.
        most_bytes: peak memory so far in bytes; None if it is unknown.
    """
    memory = "" if most_bytes is None else f", {size(most_bytes)} at most so far"
    return f"about {duration(steps * seconds)} for {steps} {'step' if steps == 1 else 'steps'}{memory}"


def duration(seconds: float) -> str:
    """A time as text, in its two largest units.

    >>> [duration(value) for value in (0.4, 59.6, 754, 12_000, 190_000)]
    ['0 s', '1 min', '13 min', '3 h 20 min', '2 d 5 h']
    """
    if round(seconds) < 60:
        return f"{round(seconds)} s"
    minutes = round(seconds / 60)
    if minutes < 60:
        return f"{minutes} min"
    if minutes < 24 * 60:
        return joined(minutes // 60, "h", minutes % 60, "min")
    hours = round(minutes / 60)
    return joined(hours // 24, "d", hours % 24, "h")


def joined(large: int, unit: str, small: int, small_unit: str) -> str:
    """A quantity in two units; the smaller one is left out if it is 0."""
    return f"{large} {unit}" + (f" {small} {small_unit}" if small else "")


def size(count: int) -> str:
    """A number of bytes as text in MB (10^6 bytes) or GB (10^9 bytes).

    >>> [size(value) for value in (52_000_000, 3_100_000_000)]
    ['52 MB', '3.1 GB']
    """
    return f"{count / 1e9:.1f} GB" if count >= 1e9 else f"{count / 1e6:.0f} MB"
