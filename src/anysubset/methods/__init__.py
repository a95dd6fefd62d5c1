"""The methods, one small file each, and the table by which the rest knows them."""

import inspect
from collections.abc import Mapping
from typing import Any, get_type_hints

import torch

from anysubset.errors import InputError, unknown
from anysubset.methods.dropout import Dropout
from anysubset.methods.ensemble import Ensemble
from anysubset.methods.full import Full
from anysubset.methods.gmd import GradientDecoupling
from anysubset.methods.method import Loss, Method
from anysubset.methods.sharing import Sharing
from anysubset.tasks.task import Task

METHODS: dict[str, type[Method]] = {
    "gmd": GradientDecoupling,
    "sharing": Sharing,
    "dropout": Dropout,
    "full": Full,
    "ensemble": Ensemble,
}

__all__ = ["METHODS", "Loss", "Method", "create_method", "method_of", "method_options"]


def method_options(name: str) -> dict[str, Any]:
    """The options of a method with their defaults.

    Raises:
        InputError: if no method has this name.
    """
    if str(name) not in METHODS:
        raise unknown("method", name, METHODS)
    parameters = inspect.signature(METHODS[name].__init__).parameters.values()
    return {each.name: each.default for each in parameters if each.kind is inspect.Parameter.KEYWORD_ONLY}


def method_of(settings: Mapping[str, Any], task: Task, generator: torch.Generator | None = None) -> Method:
    """A fresh method from the settings `method` of an experiment: its name and its options.

    Raises:
        InputError: if the method or one of the options is unknown.
    """
    options = {name: value for name, value in settings.items() if name != "name"}
    return create_method(settings["name"], task, options, generator)


def create_method(
    name: str, task: Task, options: Mapping[str, Any], generator: torch.Generator | None = None
) -> Method:
    """A fresh method; its networks are drawn from torch's global generator.

    Raises:
        InputError: if the method or one of the options is unknown.
    """
    known = method_options(name)
    for option, value in options.items():
        if option not in known:
            raise unknown(f"option of method {name!r}", option, known)
        kind = get_type_hints(METHODS[name].__init__)[option]
        if not isinstance(value, int | float if kind is float else kind):
            raise InputError(
                f"Option {option} of method {name!r} cannot be {value!r}; its default is {known[option]!r}."
            )
    return METHODS[name](task, generator, **options)
