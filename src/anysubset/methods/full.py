"""Training on complete input only: how most multimodal models are trained today, and what goes wrong with it."""

from anysubset.methods.dynamic_sharing import DynamicSharingMethod
from anysubset.scenarios import Scenario


class Full(DynamicSharingMethod):
    """DS, the full scenario alone; samples that lack a modality teach it nothing."""

    def cases(self) -> list[Scenario]:
        """The one in which nothing is missing."""
        return [self.task.modalities]
