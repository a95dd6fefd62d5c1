"""A network of your own trained with GMD: one encoder per modality, and attention weights over the present modalities.

`encode` gets the samples that have a modality, `decode` gets samples that all have the same modalities; a missing
modality has no key. Modules in an `nn.ModuleDict` with modalities as keys belong to one modality; conflict between the
cases is measured on all other parameters.

    python examples/own_network.py
"""

import tempfile
from collections.abc import Mapping
from importlib import util
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

import anysubset
from anysubset.models.network import Network
from anysubset.tasks.prediction import Prediction


class WeightedMean(Network):
    """Mean of the features weighted by attention, one weight per sample and modality, then two shared layers.

    Args:
        task: with the modalities and the size of each vector.
        width: of the features.
    """

    def __init__(self, task: Prediction, width: int = 16) -> None:
        super().__init__(task.modalities)
        self.encoders = nn.ModuleDict({name: nn.Linear(stream.size, width) for name, stream in task.streams.items()})
        self.score = nn.Linear(width, 1)
        self.head = nn.Sequential(nn.Linear(width, width), nn.ReLU(), nn.Linear(width, len(task.classes) or 1))

    def encode(self, modality: str, x: Tensor, valid: Tensor | None = None) -> Tensor:
        """(n, size) -> (n, width)."""
        features: Tensor = self.encoders[modality](x)
        return features

    def decode(self, features: Mapping[str, Tensor]) -> Tensor:
        """(n, width) per present modality -> (n, outputs)."""
        present = torch.stack([features[name] for name in self.modalities if name in features])
        weights = self.score(present).softmax(dim=0)
        output: Tensor = self.head((weights * present).sum(dim=0))
        return output


def main(steps: int = 200) -> dict[str, float]:
    """Train with decoupled gradients; return the mean absolute error in each scenario of the test split."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        data_of("own_method").write_table(folder / "table.npz")
        settings = {
            "data": {"name": "table", "root": str(folder / "table.npz")},
            "method": {"name": "gmd"},
            "train": {"steps": steps, "batch": 32, "lr": 3e-3, "validate_every": 50, "device": "cpu"},
        }
        anysubset.fit(settings, run=folder / "run", network=WeightedMean)
        evaluation = anysubset.evaluate(folder / "run", network=WeightedMean)
    return {
        "+".join(score.scenario): score.value
        for score in evaluation.scores
        if score.metric == "mae" and score.sample == "all"
    }


def data_of(example: str) -> Any:
    """Import the example beside this file that writes the data."""
    spec = util.spec_from_file_location(example, Path(__file__).with_name(f"{example}.py"))
    assert spec is not None
    assert spec.loader is not None
    module = util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


if __name__ == "__main__":
    for scenario, error in main().items():
        print(f"{scenario:20} {error:.3f}")
