"""Methods and networks of the user's own: recorded by name with a run, and passed again to load it."""

from collections.abc import Mapping
from typing import Any

from torch import Generator

from anysubset.errors import InputError
from anysubset.experiments.settings import NETWORK_OPTIONS
from anysubset.methods.creation import create, method_of
from anysubset.methods.method import Method
from anysubset.methods.table import METHODS, Row
from anysubset.methods.update import UPDATES, Update
from anysubset.models.network import Network
from anysubset.tasks.task import Task
from anysubset.workflows.arguments import OwnMethod, OwnNetwork


class NotPassedError(InputError):
    """A run was trained with a method or network of the user's own, which was not passed."""


def recorded_method(
    settings: Mapping[str, Any],
    changes: Mapping[str, Any],
    method: OwnMethod,
    network: OwnNetwork,
) -> dict[str, Any]:
    """The settings `method` of a run, with the names of a method and a network of the user's own.

    Args:
        settings: of the experiment; the options of another method are dropped if the user brings one.
        changes: settings by dotted name that are meant for the user's method.
        method: of the user.
        network: of the user.
    """
    recorded = dict(settings)
    if method is not None:
        name = qualified_name(method)
        prefix = "method."
        options = {key.removeprefix(prefix): value for key, value in changes.items() if key.startswith(prefix)}
        recorded = {**(recorded if recorded["name"] == name else {}), **options, "name": name}
    if network is not None:
        # Options of the method's own network say nothing about the user's; one that is set beside it is refused.
        recorded = {
            option: value
            for option, value in recorded.items()
            if option not in NETWORK_OPTIONS or f"method.{option}" in changes
        }
        recorded["network"] = qualified_name(network)
    return recorded


def qualified_name(thing: object) -> str:
    """The module and name of a class or function, or of the class of an instance."""
    named = thing if hasattr(thing, "__qualname__") else type(thing)
    return f"{named.__module__}.{named.__qualname__}"


def create_method(
    settings: Mapping[str, Any],
    task: Task,
    generator: Generator | None = None,
    method: OwnMethod = None,
    network: OwnNetwork = None,
) -> tuple[Method, Update]:
    """Create the method and the update of a run, or take those that the user brings.

    Args:
        settings: the settings `method` of the run: `name`, perhaps `network`, and options.
        task: what the data ask for.
        generator: draws the orders of projection.
        method: of the user.
        network: of the user.

    Raises:
        InputError: if an option is unknown, or a method or network of the user does not fit or is not given again.
    """
    options = {name: value for name, value in settings.items() if name not in ("name", "network")}
    recorded = (("method", settings["name"], method), ("network", settings.get("network"), network))
    for kind, name, own in recorded:
        theirs = name is not None and (kind == "network" or (name not in METHODS and "." in name))
        if theirs and own is None:
            raise NotPassedError(
                f"This run was trained with a {kind} of your own, {name}: pass it in Python, {kind}=..."
            )
        if own is not None and qualified_name(own) != name:
            raise InputError(f"This run was trained with {kind} {name or 'of its own'}, not {qualified_name(own)}.")
    if network is not None and not isinstance(network, Network):
        network = network(task)
        if not isinstance(network, Network):
            raise InputError(f"network= is a Network, or a function of the task that makes one, not {network!r}.")
    if method is None:
        return method_of({"name": settings["name"], **options}, task, generator, network)
    if isinstance(method, Method):
        if method.task != task:
            raise InputError("The method was made for another task than that of these data; pass its class instead.")
        if network is not None or set(options) - {"gradients"}:
            raise InputError("A method that is made already takes no network= and no options: pass its class instead.")
        return method, UPDATES[str(options.get("gradients", "mean"))](method)
    return create(Row(method, "of the user"), settings["name"], task, options, generator, network)
