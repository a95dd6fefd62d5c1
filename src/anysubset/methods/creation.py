"""Create a method of the table and its update rule from options, and list the options that there are."""

import inspect
from collections.abc import Callable, Mapping
from types import UnionType
from typing import Any, Unpack, get_args, get_origin, get_type_hints

import torch

from anysubset.errors import InputError, unknown
from anysubset.methods.blend import Blend, Part, UpdateOfPart
from anysubset.methods.cases import CaseMethod
from anysubset.methods.dynamic_sharing import DynamicSharing
from anysubset.methods.method import Method
from anysubset.methods.table import METHODS, Row, methods_for, row_named
from anysubset.methods.update import UPDATES, Decoupled, Mean, Update
from anysubset.models.network import Network
from anysubset.scenarios import BY_SAMPLE, cases_in_words
from anysubset.tasks.task import Task

# ------------------------------------------------------------------------------------------------------- options


def keyword_options(callable_: Callable[..., Any]) -> dict[str, Any]:
    """The keyword-only arguments of a constructor, with their defaults; None for those of a typed `**options`."""
    parameters = inspect.signature(callable_).parameters.values()
    own = {parameter.name: parameter.default for parameter in parameters if parameter.kind is parameter.KEYWORD_ONLY}
    return own | dict.fromkeys(unpacked_types(callable_))


def unpacked_types(callable_: Callable[..., Any]) -> dict[str, Any]:
    """The types of the options in `**options: Unpack[...]`, by name; empty for a constructor without it."""
    types: dict[str, Any] = {}
    for hint in get_type_hints(callable_).values():
        if get_origin(hint) is Unpack:
            types |= get_type_hints(get_args(hint)[0])
    return types


def method_options(name: str, gradients: str | None = None) -> dict[str, Any]:
    """The options of a method with their defaults, including `gradients` and the options of this update rule.

    Args:
        name: of the method.
        gradients: name of the update rule; by default that of the method.

    Raises:
        InputError: if the method or the update rule is unknown.
    """
    row = row_named(name)
    return options_of(row, gradients or row.gradients)


def options_of(row: Row, gradients: str) -> dict[str, Any]:
    """The options of a row with their defaults, including `gradients` and the options of this update rule."""
    own = {**keyword_options(row.method.__init__), **row.options}
    return {**own, "gradients": gradients, **keyword_options(update_of(gradients).__init__)}


def update_of(gradients: str) -> type[Any]:
    """The class of an update rule. Raises InputError for an unknown name."""
    if str(gradients) not in UPDATES:
        raise unknown("method.gradients", gradients, UPDATES)
    return UPDATES[gradients]


def is_instance(value: Any, hint: Any) -> bool:
    """Whether a value has the type of an option. An int also counts as a float, but a bool does not count as an int.

    >>> is_instance(8, float | None), is_instance(None, float | None), is_instance(True, int)
    (True, True, False)
    """
    types = get_args(hint) if isinstance(hint, UnionType) else (hint,)
    classes = tuple(get_origin(kind) or kind for kind in types)
    if isinstance(value, bool):
        return bool in classes
    return isinstance(value, (*classes, int) if float in classes else classes)


def training_of(settings: Mapping[str, Any]) -> dict[str, Any]:
    """What a method sees in training, for reports: `sees`, `complete` and `models` of its row; empty without a row.

    An option `cases` that is not the default says what is seen, and whether only complete samples are used.

    Args:
        settings: `name` and the options by name.
    """
    row = METHODS.get(str(settings["name"]))
    if row is None:
        return {}
    sees, complete = row.sees, row.complete
    default = options_of(row, row.gradients).get("cases")
    cases = settings.get("cases")
    if cases is not None and cases != default and not {cases, default} <= set(BY_SAMPLE):
        sees, complete = cases_in_words(cases), cases == "full"
    return {"sees": sees, "complete": complete, "models": row.models}


# ------------------------------------------------------------------------------------------------------ creation


def create_method(
    name: str,
    task: Task,
    options: Mapping[str, Any],
    generator: torch.Generator | None = None,
    network: Network | None = None,
) -> tuple[Method, Update]:
    """Create a method and its update rule; networks are initialised from torch's global generator.

    Args:
        name: of the method in the table.
        task: modalities, loss and prediction of the data set.
        options: of the method and of its update rule, by name; `method_options` lists them.
        generator: draws the random orders in which `gmd` projects gradients; by default a new one with seed 0.
        network: replaces the network of the method; for methods of the class `DynamicSharing` only.

    Raises:
        InputError: if the method or an option is unknown, or the method does not support the task.
    """
    row = row_named(name)
    if not isinstance(task, row.method.fits):
        raise InputError(
            f"Method {name!r} is for {row.tasks}; for these data choose from: {', '.join(methods_for(type(task)))}."
        )
    return create(row, name, task, options, generator, network)


def create(
    row: Row,
    name: str,
    task: Task,
    options: Mapping[str, Any],
    generator: torch.Generator | None = None,
    network: Network | None = None,
) -> tuple[Method, Update]:
    """Create the method of a row, which need not be in the table, and its update rule.

    Args:
        row: class and default options of the method.
        name: of the method, for messages.
        task: modalities, loss and prediction of the data set.
        options: of the method and of its update rule, by name.
        generator: draws the random orders in which `gmd` projects gradients; by default a new one with seed 0.
        network: replaces the network of the method; for methods of the class `DynamicSharing` only.

    Raises:
        InputError: if an option is unknown or of the wrong type, or the method cannot take another network.
    """
    if network is not None and row.method is not DynamicSharing:
        raise InputError(f"Method {name!r} has its own network, so it cannot take another one.")
    constructor = CaseMethod if network is not None else row.method
    update_class = check_options(name, row, options, constructor)
    own = keyword_options(constructor.__init__)
    chosen = {**row.options, **{option: value for option, value in options.items() if option != "gradients"}}
    method_arguments = {option: value for option, value in chosen.items() if option in own}
    update_arguments = {option: value for option, value in chosen.items() if option not in own}
    if row.method is Blend:
        if update_class is not Mean:
            raise InputError(
                "method.gradients of a blend is set for its parts: "
                f"method.parts [{{name: sharing, gradients: {options.get('gradients', row.gradients)}}}, ensemble]."
            )
        blend = Blend(task, lambda part, common: create_part(part, task, common, generator), **method_arguments)
        return blend, UpdateOfPart(blend)
    method = row.method(task, **method_arguments) if network is None else CaseMethod(task, network, **method_arguments)
    if update_class is Decoupled:
        return method, Decoupled(method, generator, **update_arguments)
    return method, update_class(method, **update_arguments)


def check_options(
    name: str, row: Row, options: Mapping[str, Any], constructor: type[Method] | None = None
) -> type[Any]:
    """Check the names and types of options before a method is created; values out of range are refused by the method.

    Args:
        name: of the method, for messages.
        row: class and default options of the method.
        options: of the method and of its update rule, by name.
        constructor: the class that takes the options; by default that of the row.

    Returns:
        The class of the update rule.

    Raises:
        InputError: if an option is unknown or of the wrong type, or there is no such update rule.
    """
    constructor = constructor or row.method
    gradients = str(options.get("gradients", row.gradients))
    update_class = update_of(gradients)
    own, of_update = keyword_options(constructor.__init__), keyword_options(update_class.__init__)
    defaults = {**own, **row.options, "gradients": gradients, **of_update}
    hints = {
        **get_type_hints(update_class.__init__),
        **get_type_hints(constructor.__init__),
        **unpacked_types(constructor.__init__),
        "gradients": str,
    }
    for option, value in options.items():
        if option not in defaults and row.method is Blend and option == "cases":
            raise InputError(
                "method.cases of a blend is set for its parts: "
                f"method.parts [{{name: sharing, cases: {value}}}, ensemble]."
            )
        if option not in defaults:
            raise unknown(f"option of method {name!r}", option, defaults)
        if not is_instance(value, hints[option]):
            raise InputError(
                f"Option {option} of method {name!r} cannot be {value!r}; its default is {defaults[option]!r}."
            )
    return update_class


def create_part(part: Any, task: Task, common: Mapping[str, Any], generator: torch.Generator | None) -> Part:
    """Create a part of a blend.

    Args:
        part: name of a method, or a mapping with `name` and options of the method and of its update rule.
        task: modalities, loss and prediction of the data set.
        common: options that the part gets if it has them and does not set them itself.
        generator: draws the random orders in which `gmd` projects gradients.

    Raises:
        InputError: if the part is neither, or the method or an option is unknown.
    """
    own = {"name": part} if isinstance(part, str) else part
    if not isinstance(own, Mapping) or not isinstance(own.get("name"), str):
        raise InputError(
            "method.parts is a list of names of methods, or of names with options, such as "
            f"[{{name: sharing, width: 0.5}}, ensemble]; {part!r} is neither."
        )
    options = {option: value for option, value in own.items() if option != "name"}
    defaults = method_options(own["name"], options.get("gradients"))
    shared = {option: value for option, value in common.items() if option in defaults}
    return Part(own["name"], *create_method(own["name"], task, {**shared, **options}, generator))


def method_of(
    settings: Mapping[str, Any],
    task: Task,
    generator: torch.Generator | None = None,
    network: Network | None = None,
) -> tuple[Method, Update]:
    """Create the method and the update rule that the settings `method` of an experiment describe.

    Args:
        settings: `name` and the options by name.
        task: modalities, loss and prediction of the data set.
        generator: draws the random orders in which `gmd` projects gradients; by default a new one with seed 0.
        network: replaces the network of the method; for methods of the class `DynamicSharing` only.

    Raises:
        InputError: if the method or an option is unknown, or the method does not support the task.
    """
    options = {option: value for option, value in settings.items() if option != "name"}
    return create_method(settings["name"], task, options, generator, network)
