"""Networks of OGM-GE: one expert per modality, whose outputs are averaged (volumes) or added (tables).

Both say what one modality contributes by itself, on which OGM-GE compares the modalities.
"""

from abc import abstractmethod
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from anysubset.errors import InputError
from anysubset.models import fusion
from anysubset.models.network import Network
from anysubset.models.sharing import DynamicSharing


class Experts(Network):
    """One expert per modality; the features of a modality are the output of its expert.

    experts: by modality, in the task's order; each a network of that modality alone.
    """

    def __init__(self, experts: Mapping[str, DynamicSharing]) -> None:
        super().__init__(experts)
        self.experts = nn.ModuleDict(experts)
        self.unit = next(iter(experts.values())).unit

    def encode(self, modality: str, x: Tensor, valid: Tensor | None = None, group: Tensor | None = None) -> Tensor:
        """Output of the expert of a modality: (n, outputs, ...)."""
        expert = self.experts[modality]
        assert isinstance(expert, DynamicSharing)
        return expert.predict_one(modality, x, valid, group)

    @abstractmethod
    def alone(self, features: Tensor) -> Tensor:
        """Prediction of one modality by itself, from its features: (n, outputs, ...)."""

    def encoder_weights(self, modality: str, only_conv: bool) -> dict[str, nn.Parameter]:
        """The weights of the encoder of a modality, by name: all of its expert but the head, biases and norms.

        Args:
            modality: one of `self.modalities`.
            only_conv: whether only weights of convolutions count.
        """
        expert = self.experts[modality]
        convolutions = {
            id(module.weight) for module in expert.modules() if isinstance(module, nn.Conv1d | nn.Conv2d | nn.Conv3d)
        }
        return {
            name: parameter
            for name, parameter in expert.named_parameters()
            if parameter.ndim > 1 and not name.startswith("head.") and (id(parameter) in convolutions or not only_conv)
        }


class MeanOfExperts(Experts):
    """The prediction is the mean of the outputs of the present modalities' experts."""

    def decode(self, features: Mapping[str, Tensor]) -> Tensor:
        """Mean of the outputs: (n, outputs, ...)."""
        return fusion.mean(features)

    def alone(self, features: Tensor) -> Tensor:
        """The output of the expert as it is."""
        return features


class SumOfExperts(Experts):
    """The prediction is the sum of the outputs of the present modalities' experts plus one bias.

    This is a linear layer on the concatenated features z_m of all modalities: sum_m W_m z_m + b. The term of a missing
    modality is left out, which is the same as features 0.

    Args:
        experts: by modality, in the task's order, with a linear head each; its bias is removed.
        outputs: number of outputs.
    """

    def __init__(self, experts: Mapping[str, DynamicSharing], outputs: int) -> None:
        super().__init__(experts)
        for expert in experts.values():
            assert isinstance(expert.head, nn.Linear)
            expert.head.register_parameter("bias", None)
        self.bias = nn.Parameter(torch.zeros(outputs))

    def decode(self, features: Mapping[str, Tensor]) -> Tensor:
        """Sum of the outputs plus the whole bias: (n, outputs).

        Raises:
            InputError: if there is no modality.
        """
        if not features:
            raise InputError("No modality is present, so there are no features to fuse.")
        # In alphabetical order, so that the order of the keys does not matter, not even in rounding.
        return torch.stack([features[modality] for modality in sorted(features)]).sum(dim=0) + self.bias

    def alone(self, features: Tensor) -> Tensor:
        """W_m z_m + b / M: the output of the expert plus its share of the bias."""
        return features + self.bias / len(self.modalities)
