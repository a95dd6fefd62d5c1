"""Optimizers: sgd, adam and adamw, with separate learning rates for parameters chosen by name."""

import difflib
from collections.abc import Mapping
from fnmatch import fnmatchcase
from typing import Any

import torch
from torch import nn

from anysubset.errors import InputError
from anysubset.experiments.train_settings import TrainSettings
from anysubset.methods.method import Stage
from anysubset.models.pretrained import PretrainedEncoder

PRETRAINED_RATE = 2e-5  # Pretrained encoders are fine-tuned slowly (BERT, appendix A.3: 2e-5 to 5e-5).


def optimizer_of(stage: Stage, module: nn.Module, settings: TrainSettings) -> torch.optim.Optimizer:
    """The optimizer of a stage; one without parameters if the stage has no gradients (`fit_steps`)."""
    if stage.fit_steps:
        return torch.optim.SGD([{"params": [], "peak": 0.0}], lr=0.0)
    return create_optimizer(module, settings)


def create_optimizer(module: nn.Module, settings: TrainSettings) -> torch.optim.Optimizer:
    """Create the optimizer of the parameters of a module that require a gradient.

    The first parameter group has the learning rate `settings.lr`, the next one holds the parameters of pretrained
    encoders, and then comes one group for each pattern of `settings.rates`; empty groups are left out. A pattern takes
    precedence over the default rate of pretrained encoders, and an earlier pattern over a later one. Each group has a
    key `peak`, its highest learning rate, which `set_learning_rates` multiplies by the factor of the schedule.

    Raises:
        InputError: if no parameter requires a gradient, or a pattern of `settings.rates` matches no parameter.
    """
    groups = [
        {"params": trained, "lr": rate, "peak": rate}
        for parameters, rate in parameters_by_rate(module, settings)
        if (trained := [parameter for parameter in parameters if parameter.requires_grad])
    ]
    if not groups:
        raise InputError("No parameter of the model requires a gradient: there is nothing to train.")
    adam: dict[str, Any] = {"betas": (settings.betas[0], settings.betas[1]), "amsgrad": settings.amsgrad}
    common: dict[str, Any] = {"lr": settings.lr, "weight_decay": settings.weight_decay}
    if settings.optimizer == "sgd":
        return torch.optim.SGD(groups, **common, momentum=settings.momentum, nesterov=settings.nesterov)
    if settings.optimizer == "adamw":
        return torch.optim.AdamW(groups, **common, **adam)
    return torch.optim.Adam(groups, **common, **adam)


def set_learning_rates(optimizer: torch.optim.Optimizer, factor: float) -> None:
    """Set the learning rate of each group to its peak times the factor of the schedule."""
    for group in optimizer.param_groups:
        group["lr"] = group["peak"] * factor


def parameters_by_rate(module: nn.Module, settings: TrainSettings) -> list[tuple[list[nn.Parameter], float]]:
    """Groups of parameters with their peak learning rates: the default, pretrained encoders, then each pattern.

    Every parameter is in exactly one group.

    Raises:
        InputError: if a pattern matches no parameter, or only parameters that earlier patterns match.
    """
    # A parameter that two layers share has two names; a pattern may match either.
    names: dict[nn.Parameter, list[str]] = {}
    for name, parameter in module.named_parameters(remove_duplicate=False):
        names.setdefault(parameter, []).append(name)
    encoders = [layer for layer in module.modules() if isinstance(layer, PretrainedEncoder)]
    pretrained = {parameter for encoder in encoders for parameter in encoder.pretrained.parameters()}
    default: list[nn.Parameter] = []
    tuned: list[nn.Parameter] = []
    by_pattern: dict[str, list[nn.Parameter]] = {pattern: [] for pattern in settings.rates}
    for parameter, own in names.items():
        matching = [pattern for pattern in settings.rates if any(fnmatchcase(name, pattern) for name in own)]
        if matching:
            by_pattern[matching[0]].append(parameter)
        else:
            (tuned if parameter in pretrained else default).append(parameter)
    check_patterns(by_pattern, [name for own in names.values() for name in own])
    return [
        (default, settings.lr),
        (tuned, PRETRAINED_RATE),
        *((parameters, settings.rates[pattern]) for pattern, parameters in by_pattern.items()),
    ]


def check_patterns(by_pattern: Mapping[str, list[nn.Parameter]], names: list[str]) -> None:
    """Raise InputError for a pattern without parameters.

    Args:
        by_pattern: the parameters in the group of each pattern.
        names: names of all parameters.
    """
    for pattern, parameters in by_pattern.items():
        if parameters:
            continue
        if any(fnmatchcase(name, pattern) for name in names):
            raise InputError(
                f"train.rates: {pattern!r} changes nothing, since earlier patterns match all of its parameters. "
                "The first pattern that matches counts: put it before them."
            )
        # The suggestions include single parameters (`network.head.weight`) and modules (`network.head.*`).
        parts = [name.split(".") for name in names]
        groups = {".".join(part[:depth]) + ".*" for part in parts for depth in range(1, len(part))}
        near = difflib.get_close_matches(pattern, sorted({*names, *groups}), n=3, cutoff=0.5) or sorted(names)[:3]
        raise InputError(f"train.rates: {pattern!r} matches no parameter. Names near it: {', '.join(near)}.")
