"""Dynamic Sharing with the plain mean of the case losses: GMD without decoupling, the ablation of the paper."""

import torch

from anysubset.methods.dynamic_sharing import DynamicSharingMethod, default_cases
from anysubset.scenarios import Scenario, case_sampler
from anysubset.tasks.task import Task


class Sharing(DynamicSharingMethod):
    """DS, every case weighted alike.

    Args:
        task: what the data ask for.
        generator: draws the cases.
        cases: `all`, `missing=R` or `random=K`; by default all up to four modalities, else `random=5`.
    """

    def __init__(self, task: Task, generator: torch.Generator | None = None, *, cases: str | None = None) -> None:
        super().__init__(task, generator)
        self.sampler = case_sampler(task.modalities, cases or default_cases(task.modalities))

    def cases(self) -> list[Scenario]:
        """As the sampler draws them."""
        return self.sampler(self.generator)
