"""The parameters of the estimators: their types, and the settings of a training."""

from collections.abc import Mapping
from numbers import Integral, Real
from typing import Any

import numpy as np

from anysubset.errors import InputError, unknown
from anysubset.experiments.settings import Experiment, TaskSettings
from anysubset.experiments.train_settings import TrainSettings
from anysubset.methods.creation import check_options
from anysubset.methods.table import row_named

# Validations in a training: one in `SPACING` steps, but `FEWEST` in a short and at most `MOST` in a long training.
SPACING, FEWEST, MOST = 20, 10, 25

# Types of the parameters; None stands for the default of the method, or of the preset.
KINDS: dict[str, tuple[Any, ...]] = {
    "method": (str,),
    "cases": (str, None),
    "rule": (str, None),
    "preset": (str, None),
    "width": (Integral, None),
    "layers": (Integral, None),
    "dropout": (Real, None),
    "options": (Mapping, None),
    "nan": (str,),
    "steps": (Integral,),
    "patience": (Integral, None),
    "batch": (Integral,),
    "lr": (Real,),
    "weight_decay": (Real,),
    "validation_fraction": (Real,),
    "device": (str,),
    "verbose": (Integral, bool),
}
TYPE_NAMES = {
    str: "text",
    Integral: "a whole number",
    Real: "a number",
    Mapping: "a dict",
    bool: "True or False",
    None: "None",
}

NAN = ("mean", "refuse")

# Parameters that are options of the method, with the type that these have.
METHOD_OPTIONS = {"cases": str, "rule": str, "preset": str, "width": int, "layers": int, "dropout": float}


def check_parameters(parameters: Mapping[str, Any]) -> None:
    """Raise InputError for parameters of a wrong type, and for options that the method does not have.

    Values out of range are refused by settings, task and method.

    Args:
        parameters: of an estimator, by name.
    """
    for name, kinds in KINDS.items():
        value = parameters[name]
        fits = any(value is None if kind is None else isinstance(value, kind) for kind in kinds)
        if not fits or (isinstance(value, bool | np.bool_) and bool not in kinds):
            raise InputError(f"{name} is {' or '.join(TYPE_NAMES[kind] for kind in kinds)}, not {value!r}.")
    if not 0 <= parameters["validation_fraction"] < 1:
        raise InputError(f"validation_fraction is a share from 0 to below 1, not {parameters['validation_fraction']}.")
    if parameters["nan"] not in NAN:
        raise unknown("nan", parameters["nan"], NAN)
    method = parameters["method"]
    check_options(method, row_named(method), method_options_of(parameters))


def method_options_of(parameters: Mapping[str, Any]) -> dict[str, Any]:
    """Options of the method by name: the parameters that are set and those in `options`.

    Raises:
        InputError: if a name in `options` is not text, is the method's, or is set by a parameter as well.
    """
    named = {name: kind(parameters[name]) for name, kind in METHOD_OPTIONS.items() if parameters[name] is not None}
    others = dict(parameters["options"] or {})
    for name in others:
        if not isinstance(name, str):
            raise InputError(f"options maps names of options to values; {name!r} is not a name.")
        if name == "name":
            raise InputError("options does not name the method: set method.")
        if name in named:
            raise InputError(f"{name} is set twice, by {name}= and by options: set one of them.")
    # numpy's numbers, as in the grids of a search, count as Python's.
    return named | {name: value.item() if isinstance(value, np.generic) else value for name, value in others.items()}


def experiment_of(
    parameters: Mapping[str, Any], seed: int, samples: int, validating: bool, calibrating: bool, error: str | None
) -> Experiment:
    """Settings of the training.

    Args:
        parameters: of an estimator, by name.
        seed: of all random numbers.
        samples: number of training samples.
        validating: whether there is a split `val`.
        calibrating: whether validation calibrates the predictions.
        error: loss of a regression; None for classes.
    """
    steps, method, patience = int(parameters["steps"]), parameters["method"], parameters["patience"]
    every = max(1, min(steps // FEWEST, max(SPACING, steps // MOST))) if validating else max(1, steps)
    return Experiment(
        seed=seed,
        task=TaskSettings(error=error),
        method={"name": method, **method_options_of(parameters)},
        train=TrainSettings(
            steps=steps,
            batch=samples if row_named(method).method.full_batch else min(int(parameters["batch"]), samples),
            lr=float(parameters["lr"]),
            weight_decay=float(parameters["weight_decay"]),
            schedule="cosine",
            clip=1.0,
            select="best" if validating else "last",
            calibrate=None if calibrating else False,
            patience=int(patience) if validating and patience is not None else None,
            validate_every=every,
            checkpoint_every=max(1, steps),
            log_every=every,
            device=parameters["device"],
        ),
    )
