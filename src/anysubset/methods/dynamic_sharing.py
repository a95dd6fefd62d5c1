"""Dynamic Sharing: one backbone for every modality, and the mean of the features of what is present.

Wang, Luo, Hu, Zhang, "Gradient-guided Modality Decoupling for Missing-Modality Robustness", equations (1) and (2).
"""

from collections.abc import Iterable, Iterator

from torch import Tensor, nn

from anysubset.batches import Inputs, Observed
from anysubset.methods.cases import CaseMethod
from anysubset.methods.method import fuse_scenarios
from anysubset.models import sharing
from anysubset.models.presets import sharing_network
from anysubset.scenarios import Scenario
from anysubset.tasks.task import Carry, Task, at_once


class DynamicSharing(CaseMethod):
    """Trains a Dynamic Sharing network.

    Args:
        task: what the data ask for.
        cases: of a step `all`, `full`, `missing=R` or `random=K`; of each sample `sample` or `sample=size`. By default
            `all` for up to four modalities, else `random=5`.
        preset, width, layers, dropout, head, stem, steps, bert: of the network, see `sharing_network`.
    """

    network: sharing.DynamicSharing

    def __init__(
        self,
        task: Task,
        *,
        cases: str | None = None,
        preset: str | None = None,
        width: float | None = None,
        layers: int | None = None,
        dropout: float | None = None,
        head: str | None = None,
        stem: bool | None = None,
        steps: int | None = None,
        bert: str | None = None,
    ) -> None:
        network = sharing_network(
            task,
            preset=preset,
            width=width,
            layers=layers,
            dropout=dropout,
            head=head,
            stem=stem,
            steps=steps,
            bert=bert,
        )
        super().__init__(task, network, cases=cases)

    def predict(self, inputs: Inputs) -> Tensor:
        """Fuse the features of what each sample has."""
        prediction: Tensor = self.network(inputs)
        return prediction

    def predict_scenarios(
        self, inputs: Inputs, scenarios: Iterable[Scenario], carry: Carry = at_once
    ) -> Iterator[tuple[Scenario, Tensor]]:
        """Each modality passes the network once; with an affine head, predictions are averaged, else features."""
        network = self.network
        alone = network.predict_one if network.affine else network.encode

        def branch(modality: str, observed: Observed) -> Tensor:
            return alone(modality, observed.values, observed.valid)

        return fuse_scenarios(branch, inputs, scenarios, carry, nn.Identity() if network.affine else network.head)
