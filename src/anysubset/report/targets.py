"""What the scores of samples tell of their targets, which `scores.csv` does not hold, and what follows from these."""

import math
from collections.abc import Iterable, Mapping, Sequence
from statistics import fmean

from anysubset.report.results import BySample, Result, Together
from anysubset.scenarios import Scenario
from anysubset.scoring.scores import ALL

CLOSE = 1e-4  # Further apart than float32 puts what is the same.


def targets(results: Iterable[Result]) -> dict[str, float]:
    """The target of every sample, as far as answers and their errors tell.

    A number lies `error` above or below its `prediction`, in every scenario and run, which agree on one place only. A
    class is the `prediction` that was `correct` anywhere, or of two the other one. A sample of which this cannot be
    said has no key.
    """
    pairs: dict[str, list[tuple[float, float]]] = {}
    classes = 0
    exact = False
    for result in results:
        classes = len(result.known.get("classes", ()))
        exact = ("correct", ALL) in result.samples
        answers = result.samples.get(("prediction", ALL), {})
        marks = result.samples.get(("correct" if exact else "error", ALL), {})
        for scenario in set(answers) & set(marks):
            for sample, answer in answers[scenario].items():
                pairs.setdefault(sample, []).append((answer, marks[scenario][sample]))
    found = {}
    for sample, seen in pairs.items():
        target = class_of(seen, classes) if exact else number_of(seen)
        if target is not None:
            found[sample] = target
    return found


def class_of(seen: Iterable[tuple[float, float]], classes: int) -> float | None:
    """From answers and whether each is correct."""
    seen = list(seen)
    right = [answer for answer, correct in seen if correct]
    if right:
        return right[0]
    return 1 - seen[0][0] if classes == 2 else None


def number_of(seen: Sequence[tuple[float, float]]) -> float | None:
    """From answers and how far off each is."""
    answer, error = min(seen, key=lambda pair: pair[1])  # The smaller the error, the less is lost to rounding.
    places = {answer - error, answer + error}
    places = {place for place in places if all(abs(abs(place - other) - distance) < CLOSE for other, distance in seen)}
    if not places or max(places) - min(places) > CLOSE:
        return None
    place = fmean(places)
    return 0.0 if abs(place) < CLOSE else place


def signs_right(result: Result, metric: str, target: Mapping[str, float]) -> BySample | None:
    """For `acc2` and `acc2_zero`, whether each sample's sign is right: 1 or 0.

    None where a target is not known, or the mean is not the score that the run wrote: better nothing than a guess.
    """
    answers = result.samples.get(("prediction", ALL))
    if metric not in ("acc2", "acc2_zero") or answers is None or metric not in result.over_set:
        return None
    found: dict[Scenario, dict[str, float]] = {}
    for scenario, by_id in answers.items():
        if not set(by_id) <= set(target):
            return None
        if metric == "acc2":
            marks = {each: float((answer > 0) == (target[each] > 0)) for each, answer in by_id.items() if target[each]}
        else:
            marks = {each: float((answer >= 0) == (target[each] >= 0)) for each, answer in by_id.items()}
        score = result.over_set[metric].get(scenario)
        if score is None or not marks or not math.isclose(fmean(marks.values()), score, abs_tol=1e-6):
            return None
        found[scenario] = marks
    return found


def constants(metric: str, group: Together, target: Mapping[str, float]) -> dict[str, float]:
    """What answers without looking score, by name: those learned in training, and `chance` on the very split.

    Of folds the mean.
    Empty for volumes, for other metrics than `acc2`, `acc2_zero`, `accuracy` and `mae`, where no run knows its
    constants, and where not every target is known.
    """
    if not all(result.known.get("constants") for result in group.folds) or set(target) < set(group.everybody):
        return {}
    by_fold = [constants_of(metric, result, target) for result in group.folds]
    return {
        name: fmean(found[name] for found in by_fold) for name in by_fold[0] if all(name in found for found in by_fold)
    }


def constants_of(metric: str, result: Result, target: Mapping[str, float]) -> dict[str, float]:
    """On the samples of one run."""
    truth = [target[sample] for sample in result.everybody]
    found = {}
    for name, answer in result.known["constants"].items():
        score = constant_score(metric, float(answer), truth)
        # The majority of signs is 1 or -1, which is a sign and no number.
        if score is not None and (metric != "mae" or name != "majority"):
            found[f"{name} of training"] = score
    if found and metric != "mae":
        best = [
            constant_score(metric, answer, truth) for answer in (set(truth) if metric == "accuracy" else (-1.0, 1.0))
        ]
        found["chance"] = max(score for score in best if score is not None)
    return found


def constant_score(metric: str, answer: float, truth: Sequence[float]) -> float | None:
    """Of one answer to everything."""
    if metric == "acc2":
        signed = [each for each in truth if each]
        return fmean((answer > 0) == (each > 0) for each in signed) if signed else None
    if metric == "acc2_zero":
        return fmean((answer >= 0) == (each >= 0) for each in truth)
    if metric == "accuracy":
        return fmean(answer == each for each in truth)
    return fmean(abs(answer - each) for each in truth) if metric == "mae" else None
