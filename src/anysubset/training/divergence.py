"""Stop a training whose numbers are no longer finite, before any of them is saved."""

import math
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from anysubset.errors import InputError, listed
from anysubset.methods.update import Gradients
from anysubset.system import processes

LISTED = 5  # Names in a message.


class DivergedError(InputError):
    """A loss, gradient, weight or prediction of a training is NaN or infinite.

    what: which of them.
    """

    def __init__(self, what: str, message: str) -> None:
        super().__init__(message)
        self.what = what


def gradients_of(module: nn.Module) -> list[Tensor]:
    """All gradients of a module; those of sparse embeddings as their values."""
    gradients = [parameter.grad for parameter in module.parameters() if parameter.grad is not None]
    return [gradient.coalesce().values() if gradient.is_sparse else gradient for gradient in gradients]


def nonfinite_step(method: nn.Module, gradients: Gradients, norm: Tensor | None) -> str | None:
    """Name the losses or gradients of a step that are not finite on some rank; None if all are finite.

    Takes one synchronisation with a GPU, and one all-reduce with several ranks.

    Args:
        method: with the gradient of the step in `.grad`.
        gradients: losses of the step.
        norm: of the gradient; None to check the losses only.
    """
    numbers = [loss for _, loss, _ in gradients.losses] + ([] if norm is None else [norm])
    flags = [number.detach().double().squeeze().isfinite() for number in numbers]
    finite = not flags or bool(torch.stack(flags).all())
    if not processes.any_rank(not finite, next(method.parameters()).device):
        return None
    values = processes.gathered([(name, loss.item()) for name, loss, _ in gradients.losses])
    losses = {name: value for name, value in values if not math.isfinite(value)}
    if losses:
        return f"the loss of {listed(losses, LISTED)} is {next(iter(losses.values()))}"
    names = [name for name, parameter in method.named_parameters() if parameter.grad is not None]
    nonfinite = nonfinite_tensors(dict(zip(names, gradients_of(method), strict=True)))
    where = f"NaN or infinite in {listed(nonfinite, LISTED)}" if nonfinite else "too long for float32"
    return f"the gradient of {listed(gradients.totals, LISTED)} is {where}"


def nonfinite_tensors(tensors: Mapping[str, Tensor]) -> list[str]:
    """Names of floating-point tensors with a value that is NaN or infinite; one synchronisation with a GPU."""
    floating = {name: tensor for name, tensor in tensors.items() if tensor.is_floating_point()}
    if not floating:
        return []
    flags = torch.stack([tensor.isfinite().all() for tensor in floating.values()]).tolist()
    return [name for name, is_finite in zip(floating, flags, strict=True) if not is_finite]


def state_of(module: nn.Module, optimizer: torch.optim.Optimizer | None = None) -> dict[str, Tensor]:
    """Tensors that have to be finite, by name: parameters, running statistics and moments of the optimizer.

    Other buffers may hold infinity on purpose, such as masks of attention.
    """
    tensors: dict[str, Tensor] = {name: parameter.detach() for name, parameter in module.named_parameters()}
    tensors |= {
        name: buffer
        for name, buffer in module.named_buffers()
        if name.rpartition(".")[2] in ("running_mean", "running_var")
    }
    if optimizer is not None:
        names = {id(parameter): name for name, parameter in module.named_parameters()}
        tensors |= {
            f"{names.get(id(parameter), 'parameter')} ({kind} of the optimizer)": value
            for parameter, values in optimizer.state.items()
            for kind, value in values.items()
            if isinstance(value, Tensor) and value.device == parameter.device
        }
    return tensors


def check_finite(module: nn.Module, optimizer: torch.optim.Optimizer | None, path: Path) -> None:
    """Raise InputError if what was loaded from a checkpoint is not finite."""
    names = nonfinite_tensors(state_of(module, optimizer))
    if names:
        raise InputError(
            f"{path} holds values that are NaN or infinite, in {listed(names, LISTED)}: its training diverged, or "
            "the file is damaged. Train again in another folder, with a lower train.lr or with train.clip 1."
        )
