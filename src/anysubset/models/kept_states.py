"""Hidden states of a frozen encoder, computed once for each sample and kept in memory.

They are kept by hashes of the encoder's weights and of the sample's input, so they are right for any batch, and after
other weights were loaded.
"""

import hashlib
from collections.abc import Callable, Iterable

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from anysubset.models.encoders import Steps


class KeptStates:
    """States of the samples that an encoder has seen.

    Args:
        module: the encoder, whose weights do not change, except when others are loaded.
        compute: its hidden states, from inputs (n, ...) and valid (n, time) or None.
    """

    def __init__(self, module: nn.Module, compute: Callable[[Tensor, Tensor | None], Steps]) -> None:
        self.module = module
        self.compute = compute
        self.by_input: dict[bytes, Tensor] = {}
        self.weights: bytes | None = None  # Their hash, once it was needed.
        module.register_load_state_dict_post_hook(self.forget_weights)

    def forget_weights(self, module: nn.Module, keys: object) -> None:
        """Compute the hash of the weights anew. Called when weights were loaded."""
        self.weights = None

    def states(self, x: Tensor, valid: Tensor | None) -> Steps:
        """States of n samples; those of samples that were seen before are not computed again.

        Each sample is computed alone and without its padding, so that its states do not depend on the batch in which it
        occurs first: a resumed run ends with the same bits.
        """
        if self.weights is None:
            self.weights = digest(self.module.state_dict().values())
        states = []
        for row in range(len(x)):
            own = x[row] if valid is None else x[row][valid[row]]
            key = self.weights + digest([own])
            if key not in self.by_input:
                real = None if valid is None else torch.ones_like(own, dtype=torch.bool)[None]
                with torch.no_grad(), torch.autocast(x.device.type, enabled=False):
                    self.by_input[key] = self.compute(own[None], real).values[0].cpu()
            states.append(self.by_input[key])
        lengths = torch.tensor([len(own) for own in states])
        padded = pad_sequence(states, batch_first=True)
        return Steps(padded.to(x.device), (torch.arange(padded.shape[1]) < lengths[:, None]).to(x.device))


def digest(tensors: Iterable[Tensor]) -> bytes:
    """Hash of the values, types and shapes of tensors, 16 bytes."""
    code = hashlib.blake2b(digest_size=16)
    for tensor in tensors:
        code.update(f"{tensor.dtype} {tuple(tensor.shape)} ".encode())
        code.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return code.digest()
