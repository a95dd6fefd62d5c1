"""Modality dropout: Dynamic Sharing trained on one random case a step, the usual cheap cure."""

from anysubset.methods.dynamic_sharing import DynamicSharingMethod
from anysubset.scenarios import Scenario, draw_cases


class Dropout(DynamicSharingMethod):
    """DS, one of the 2^M - 1 cases a step, each equally likely."""

    def cases(self) -> list[Scenario]:
        """One, drawn afresh."""
        return draw_cases(self.task.modalities, 1, self.generator)
