"""Tests of conflict during training, which switch decoupling on and off (`method.when: measured`).

In the course of a stage the conflict between cases is compared with noise several times, on batches that are drawn for
the test alone. Decoupling is on from one test to the next if the excess is clear, and off before the first test.
"""

from collections.abc import Callable
from itertools import islice

import torch

from anysubset.gradients import GMD, NonFiniteGradientError
from anysubset.methods.cases import CaseMethod
from anysubset.methods.method import Step
from anysubset.methods.update import Decoupled, Update
from anysubset.scenarios import Scenario
from anysubset.system import processes
from anysubset.training.checkpoint import Progress
from anysubset.training.conflict import conflict_of, gramian_of
from anysubset.training.cost import flop_counter
from anysubset.training.step import StageTraining

MOST_PAIRS, LEAST_PAIRS = 12, 4  # Pairs of batches of one test.
MOST_CASES = 4  # That are compared on a pair of batches.
# A pair costs about as much as four steps without decoupling: on each batch one forward pass, a third of a step, and
# for each case the backward pass through the shared part of the network.
STEPS_A_PAIR = 40
COST = 0.1  # Of all tests of a stage, relative to its steps without decoupling; about.
SEED = 1_299_709  # Added to the seed of the experiment, so that tests draw other batches than training.


def decoupling_in_use(update: Update) -> bool:
    """Whether tests have switched decoupling on."""
    tested = rule_with_tests(update)
    return tested is not None and tested.on


def cost_of_tests(update: Update) -> float:
    """By how much tests increase the cost of a stage at most, as a factor; 1 without tests."""
    return 1.0 if rule_with_tests(update) is None else 1.0 + COST


def rule_with_tests(update: Update) -> Decoupled | None:
    """The current update rule if tests switch it on and off, else None."""
    current = update.current
    return current if isinstance(current, Decoupled) and current.when == "measured" else None


def pairs_and_tests(steps: int) -> tuple[int, tuple[int, ...]]:
    """The number of pairs of batches of a test, and how many steps of a stage are done before each test.

    The tests lie in the middle of equal parts of the stage; a stage of fewer than 160 steps has none.

    >>> pairs_and_tests(159), pairs_and_tests(200), pairs_and_tests(1000)
    ((0, ()), (5, (100,)), (12, (250, 750)))
    """
    pairs = min(MOST_PAIRS, steps // STEPS_A_PAIR)
    if pairs < LEAST_PAIRS:
        return 0, ()
    number = steps // STEPS_A_PAIR // pairs
    return pairs, tuple((2 * test + 1) * steps // (2 * number) for test in range(number))


def resume_tests(training: StageTraining, progress: Progress, report: Callable[[str], None]) -> None:
    """At the beginning of a stage, or when it is resumed: switch decoupling to what the latest test has shown."""
    update, stage = rule_with_tests(training.update), training.stage.name
    if update is None:
        return
    update.on = progress.decouples.get(stage, False)
    if not pairs_and_tests(training.settings.steps)[0]:
        report(f"{training.settings.steps} steps are too few to test for conflict: nothing is decoupled")


def test_conflict(training: StageTraining, progress: Progress, number: int, report: Callable[[str], None]) -> None:
    """Test for conflict if a test is due before a step, switch decoupling on or off, and log the figures.

    Args:
        training: the current stage.
        progress: receives the result.
        number: of the step in the run, from 1.
        report: called with one line about the result.

    Raises:
        DivergedError: if a loss or a gradient is not finite.
    """
    update = rule_with_tests(training.update)
    if update is None:
        return
    done = number - training.first - 1
    pairs, due = pairs_and_tests(training.settings.steps)
    if done not in due:
        return
    method, settings, seed = update.method, training.settings, training.run.experiment.seed
    assert isinstance(method, CaseMethod)
    device = next(method.parameters()).device
    first = 2 * pairs * due.index(done)
    batches = training.dataset.training_batches(
        "train", settings.batch, seed + SEED, first, first + 2 * pairs, settings.micro_batches, method.unit
    )
    generator = torch.Generator().manual_seed(seed + SEED + number)
    gmd = GMD(update.gmd.shared, rule="none", private=method.parameters(), metric=update.gmd.metric)
    epoch = done * settings.batch / len(training.dataset.ids("train"))
    shares = []
    with processes.chance_of_rank(seed + SEED, number, device), flop_counter() as flops:
        for _ in range(pairs):
            pair = {half: list(islice(batches, settings.micro_batches)) for half in (0, 1)}
            step = Step(done, epoch, training.stage.name, drawn_cases(method, generator), seed)
            try:
                gramian = gramian_of(gmd, method, pair, step) if step.cases else None
            except NonFiniteGradientError as error:
                raise training.diverged(number, f"in the test for conflict, {error}") from error
            conflicting = None if gramian is None else gramian.shares_in_conflict(0, 1)
            shares += [] if conflicting is None else [conflicting]
        cost = sum(processes.totals({"flops": flops()}, device).values())
    conflict = conflict_of(shares)
    update.on = conflict is not None and conflict.clear
    progress.decouples[training.stage.name] = update.on
    training.run.cost.tests[training.stage.name][number] = {"flops": cost, "on": update.on}
    if conflict is None:
        report(f"before step {number}: no two cases to compare, so nothing is decoupled")
        return
    figures = {"different": conflict.different, "same": conflict.same, "bound": conflict.bound}
    curves = {f"conflict/{name}": value for name, value in figures.items()}
    training.run.log(number, {"conflict": figures, "decouples": update.on}, curves)
    report(
        f"before step {number}: {100 * conflict.different:.1f} % of the pairs of different cases conflict between "
        f"independent batches, noise {100 * conflict.same:.1f} %: decoupling {'on' if update.on else 'off'}"
    )


def drawn_cases(method: CaseMethod, generator: torch.Generator) -> tuple[Scenario, ...]:
    """Draw the cases of a step, and at most `MOST_CASES` of them, in their order."""
    cases = method.draw(generator)
    chosen = torch.randperm(len(cases), generator=generator)[:MOST_CASES].sort().values
    return tuple(cases[index] for index in chosen.tolist())
