"""A method of your own, written outside the package: fitted, evaluated, reported, and checked by the contract test.

The cases of the method are the single modalities and the complete input. An auxiliary objective makes predictions from
a single modality agree with the prediction from all.

    python examples/own_method.py
"""

import tempfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

import anysubset
from anysubset.batches import Batch, eligible
from anysubset.methods.cases import CaseMethod
from anysubset.methods.method import Objective, Step
from anysubset.models.network import Encoded, select
from anysubset.models.presets import sharing_network
from anysubset.scenarios import Scenario
from anysubset.tasks.task import Task
from anysubset.testing import check_method

SIZES = {"text": 6, "audio": 4, "vision": 4}


class Agreement(CaseMethod):
    """Cases: every single modality, and all modalities; auxiliary objective: the mean squared difference between them.

    Args:
        task: modalities, loss and prediction.
        weight: of the auxiliary objective.
        width: of the Dynamic Sharing network; by default that of its preset.
    """

    def __init__(self, task: Task, *, weight: float = 0.1, width: float | None = None) -> None:
        super().__init__(task, sharing_network(task, width=width))
        self.weight = weight

    def draw(self, generator: torch.Generator) -> tuple[Scenario, ...]:
        """The same cases in every step."""
        return (*((modality,) for modality in self.task.modalities), self.task.modalities)

    def extra_objectives(self, step: Step) -> dict[str, Objective]:
        """The auxiliary objective, which needs complete samples."""
        return {"agreement": Objective(needs=self.task.modalities, weight=self.weight)}

    def extra_losses(self, features: Mapping[str, Encoded], batch: Batch, step: Step) -> dict[str, Tensor]:
        """Mean squared difference over modalities and complete samples."""
        indices = eligible(batch.inputs, self.task.modalities)
        if not len(indices):
            return {}
        complete = {modality: select(encoded, indices) for modality, encoded in features.items()}
        together = self.network.decode(complete).detach()
        alone = torch.stack([self.network.decode({modality: x}) for modality, x in complete.items()])
        return {"agreement": (alone - together).square().mean()}


def write_table(path: Path, samples: int = 240) -> None:
    """Write a regression table of three vectors; every third training sample lacks text, every fourth audio."""
    generator = np.random.default_rng(0)
    y = generator.normal(size=samples).astype(np.float32)
    arrays = {"y": y, "id": np.array([f"s{index}" for index in range(samples)])}
    arrays["split"] = np.array(["train"] * (samples - 80) + ["val"] * 40 + ["test"] * 40)
    for noise, (name, size) in zip((0.3, 1.0, 1.5), SIZES.items(), strict=True):
        x = y[:, None] + noise * generator.normal(size=(samples, size))
        arrays[name] = x.astype(np.float32)
    index, training = np.arange(samples), arrays["split"] == "train"
    arrays["text_present"] = ~(training & (index % 3 == 2))
    arrays["audio_present"] = ~(training & (index % 4 == 3))
    np.savez(path, **arrays)


def main(steps: int = 200, gradients: str = "mean") -> dict[str, float]:
    """Train, evaluate and report in a temporary folder; return the mean absolute test error by scenario."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_table(folder / "table.npz")
        settings = {
            "data": {"name": "table", "root": str(folder / "table.npz")},
            "train": {"steps": steps, "batch": 32, "lr": 3e-3, "validate_every": 50, "device": "cpu"},
        }
        options = {"method.weight": 0.2, "method.width": 16, "method.gradients": gradients}
        anysubset.fit(settings, run=folder / "run", method=Agreement, **options)
        evaluation = anysubset.evaluate(folder / "run", method=Agreement)
        page = anysubset.write_report([folder / "run"], output=folder / "report.html")
        assert Path(page).stat().st_size > 10_000
    return {
        "+".join(score.scenario): score.value
        for score in evaluation.scores
        if score.metric == "mae" and score.sample == "all"
    }


if __name__ == "__main__":
    print("check_method passes on:", ", ".join(check_method(Agreement)))
    for scenario, error in main().items():
        print(f"{scenario:20} {error:.3f}")
