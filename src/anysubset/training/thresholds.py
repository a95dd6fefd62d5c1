"""Thresholds of a segmentation that are chosen on validation when the training ends (`task.threshold: validated`)."""

from collections.abc import Callable

from anysubset.datasets.dataset import Dataset
from anysubset.evaluation.every_scenario import evaluate
from anysubset.evaluation.thresholds import best_thresholds
from anysubset.methods.method import Method
from anysubset.scenarios import scenario_name
from anysubset.scoring.scores import mean_over_scenarios, means, over_set, shown
from anysubset.tasks.segmentation import VALIDATED
from anysubset.training.checkpoint import Progress, selected_weights
from anysubset.training.run import Run
from anysubset.volumes.dataset import Volumes


def choose_thresholds(
    method: Method, dataset: Dataset, run: Run, progress: Progress, report: Callable[[str], None]
) -> None:
    """Choose the thresholds of the selected weights on validation; does nothing unless the task asks for it.

    The thresholds are stored beside the weights, and the validation scores there and in `progress` become those at
    these thresholds. The method keeps the weights that it has, which may be of a later step.

    Args:
        method: trained.
        dataset: with the split `val`.
        run: the open run folder, with the selected weights.
        progress: of the training.
        report: called with one line about the thresholds and the score.

    Raises:
        NonFiniteError: if a prediction is NaN or infinite.
    """
    if not isinstance(dataset, Volumes) or dataset.task.threshold != VALIDATED:
        return
    with selected_weights(run, method) as facts:
        thresholds = best_thresholds(method, dataset, "val")
        scores = evaluate(method, dataset.decided_at(thresholds), "val", thorough=False)
        by_scenario = means(scores, "dice")
        score = mean_over_scenarios(by_scenario)
        chosen = ", ".join(f"{region} {probability:g}" for region, probability in thresholds.items())
        assert progress.best is not None  # The last step was validated.
        report(f"thresholds chosen on validation: {chosen}; {shown('dice', score)}, at 0.5 {100 * progress.best:.1f}")
        progress.best = score
        progress.validation = {scenario_name(scenario): regions for scenario, regions in by_scenario.items()}
        facts |= {
            "thresholds": thresholds,
            "validation": progress.validation,
            "validation_mean": score,
            "validation_scores": over_set(scores),
        }
