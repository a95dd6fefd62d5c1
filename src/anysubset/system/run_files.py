"""What the files of a run folder hold: a schema for each of them, and readers that check it.

A run folder is handed from colleague to colleague, edited, cut off by full disks. Every reader of one of these files
uses these schemas, so that a value of the wrong kind is one line with file and field. Unknown fields are passed over:
a later version may have written them.
"""

import os
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from anysubset.errors import InputError
from anysubset.system.array_file import read_npz
from anysubset.system.input_files import decoded, json_of, read_bytes, read_json
from anysubset.system.schema import Anything, Fields, Flag, Items, Kind, Maybe, Named, Number, Text, check

COUNT = Number(whole=True, least=0)
MEASURED = Number(finite=False)  # Losses and scores of a training that diverged are NaN or infinite.
SMALL = 2**20  # Bytes of a file that does not grow with the data.
BY_SCENARIO = Named(Named(MEASURED))
TEMPERATURE = Number(least=2**-20)

# Facts of `checkpoints/best.safetensors`: what every reader needs, and what else there may be.
SELECTED = Fields(
    {"experiment": Named(Anything()), "step": COUNT, "metric": Text(), "validation": BY_SCENARIO},
    {
        "validation_mean": MEASURED,
        "validation_samples": COUNT,
        "validation_scores": BY_SCENARIO,
        "thresholds": Named(Number()),
        "choices": Named(Number()),
        "stage": Text(),
        "temperatures": Fields({"overall": Named(TEMPERATURE), "by_scenario": Named(Named(TEMPERATURE))}),
        "conformal": Named(Fields({"samples": COUNT, "scores": Items(Number())})),
        "spreads": Fields({"overall": Number(least=0), "by_scenario": Named(Number(least=0))}),
        "training": Fields(optional={"sees": Text(), "complete": Flag(), "models": Text()}),
    },
)
BEST = Fields(optional={**SELECTED.required, **SELECTED.optional})  # For a report, which shows what there is.

# Facts of `checkpoints/latest.safetensors`.
LATEST = Fields(
    {
        "experiment": Named(Anything()),
        "step": COUNT,
        "skipped": COUNT,
        "best": Maybe(MEASURED),
        "best_step": COUNT,
        "finished": Flag(),
        "validation": BY_SCENARIO,
        "stage_steps": Named(COUNT),
    },
    {
        "decouples": Named(Flag()),
        "scaler": Named(Anything()),
        "plateau": Fields({"factor": Number(), "best": Maybe(MEASURED), "waited": COUNT}),
    },
)

# Facts of `signature.safetensors`.
KNOWLEDGE = Fields(
    optional={
        "modalities": Items(Text()),
        "streams": Named(
            Fields(
                {
                    "kind": Text(("vector", "sequence", "image", "tokens", "waveform")),
                    "size": Number(whole=True, least=1),
                }
            )
        ),
        "classes": Items(Text()),
        "limits": Maybe(Items(Number(), 2)),
        "constants": Named(Number()),
        "fingerprints": Named(Text()),
        "columns": Named(Items(Text())),
    }
)

ENVIRONMENT = Fields(
    optional={
        **{name: Text() for name in ("anysubset", "python", "platform")},
        "command": Items(Text()),
        "threads": Maybe(COUNT),
        "cuda": Maybe(Text()),
        "devices": Items(Text()),
        "packages": Named(Text()),
    }
)
TESTS = Named(Fields({"flops": COUNT, "on": Flag()}))  # By number of the step.
COSTS = Fields({"steps": COUNT, "flops": Items(COUNT)}, {"tests": TESTS, "decoupled": Items(COUNT)})
# `parameters` stands in for the weights where a run was published without them (`benchmarks/publish.py`).
COST = Fields(optional={"stages": Named(COSTS), "most_bytes": Maybe(COUNT), "parameters": COUNT})
AVAILABILITY = Named(Fields({"samples": COUNT, "hash": Text(), "scenarios": Named(COUNT)}))
FINGERPRINTS = Fields({"version": COUNT, "splits": Named(Named(Named(Text())))})
# By data set, split and path: the files that were scored.
SCORED = Named(Named(Named(Fields({"hash": Text(), "state": Text()}))))
# Of every region or modality: the least and the greatest value over the training patients.
RANGES = Named(Fields({"patients": COUNT, "least": Number(), "most": Number()}))
VOXELS = Named(Fields({"patients": COUNT, "least": Items(Number(), 3), "most": Items(Number(), 3)}))
TRAINING_SET = Fields(
    {
        **{"version": COUNT, "patients": COUNT, "voxel_mm": VOXELS},
        **dict.fromkeys(("volume_ml", "intensity_mean", "intensity_deviation"), RANGES),
    }
)
LOGGED = Fields(
    {"step": COUNT},
    {
        "lr": MEASURED,
        **{name: Named(MEASURED) for name in ("losses", "other_losses", "weights", "coefficients")},
        "eligible": Named(COUNT),
        "conflicting": Maybe(MEASURED),
        "conflict": Named(MEASURED),
        "decouples": Flag(),
        "stage": Text(),
        "validation": MEASURED,
        "scenarios": BY_SCENARIO,
    },
)
ORIGIN = Fields({"split": Text(), "how": Text()})  # Of a missingness file.


def read_object(path: Path, kind: Kind, limit: int | None = None) -> dict[str, Any]:
    """Read a JSON object of a schema; empty if the file does not exist.

    limit: the largest size of the file in bytes; by default the free memory.

    Raises:
        InputError: if the file holds anything else.
    """
    if not os.path.lexists(path):
        return {}
    try:
        content = read_json(path, limit)
    except InputError as error:
        if str(error).startswith(f"{path} is not valid JSON"):
            raise InputError(f"{path} is damaged: it must be a JSON object.") from error
        raise
    if not isinstance(content, dict):
        raise InputError(f"{path} is damaged: it must be a JSON object.")
    check(content, kind, str(path))
    return content


def read_log(path: Path) -> list[dict[str, Any]]:
    """Read the entries of a `metrics.jsonl`; none if it does not exist.

    An incomplete last line, which a killed process leaves, is passed over.

    Raises:
        InputError: if another line is damaged, with its number.
    """
    if not os.path.lexists(path):
        return []
    entries = []
    # After a power cut, some file systems leave NUL bytes in place of what was appended last.
    *lines, last = decoded(read_bytes(path).rstrip(b"\0"), path).split("\n")
    for number, line in enumerate(lines, start=1):
        source = f"{path}, line {number}"
        entry = json_of(line, source)
        check(entry, LOGGED, source)
        entries.append(entry)
    try:
        entry = json_of(last, str(path)) if last.strip() else None
    except InputError:
        entry = None
    if entry is not None:  # Whole, but for the end of the line.
        check(entry, LOGGED, f"{path}, line {len(lines) + 1}")
        entries.append(entry)
    return entries


def read_decoupling(path: Path) -> dict[str, NDArray[Any]]:
    """Read the arrays of a `decoupling.npz` of this or an earlier version; see `Decouplings.arrays`.

    Raises:
        InputError: if an array is missing, or of another type or shape than the others ask for.
    """
    try:
        arrays = read_npz(path)
    except InputError as error:
        raise InputError(f"{path} is damaged: it is not a log of decoupling.") from error
    if "weights" in arrays:  # The coefficients in files of earlier versions.
        arrays["coefficients"] = arrays.pop("weights")
    for name in ("step", "cases", "case", "coefficients", "norms", "cosines"):
        if name not in arrays:
            raise InputError(f"{path} is damaged: it lacks the array {name!r}.")
    steps, cases = len(np.atleast_1d(arrays["step"])), len(np.atleast_1d(arrays["cases"]))
    k = arrays["case"].shape[-1] if arrays["case"].ndim else 0
    shapes = {"step": (steps,), "cases": (cases,), **dict.fromkeys(("case", "coefficients", "norms"), (steps, k))}
    shapes |= dict.fromkeys(("cosines", "gramian", "copies"), (steps, k, k))
    kinds = {"step": "iu", "cases": "U", "case": "iu"}
    for name, shape in shapes.items():
        if name not in arrays:
            continue
        array = arrays[name]
        if array.shape != shape or array.dtype.kind not in kinds.get(name, "f"):
            raise InputError(
                f"{path} is damaged: {name} is {array.dtype} of shape {array.shape}, where {shape} is expected."
            )
    case, step = arrays["case"], arrays["step"]
    if case.size and (case.min() < -1 or case.max() >= cases):
        raise InputError(f"{path} is damaged: case must be from -1 to {cases - 1}.")
    if steps and (step.min() < 0 or (np.diff(step) <= 0).any()):
        raise InputError(f"{path} is damaged: step must ascend.")
    if len(set(arrays["cases"].tolist())) < cases:
        raise InputError(f"{path} is damaged: cases names one of them twice.")
    return {name: arrays[name] for name in shapes if name in arrays}
