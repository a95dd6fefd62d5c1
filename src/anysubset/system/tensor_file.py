"""Checkpoint files: tensors with facts (JSON), written atomically.

The format is safetensors, with the facts in the header. Unlike a pickle, reading it never runs code.
"""

import json
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from safetensors import safe_open
from safetensors.torch import save as serialised
from torch import Tensor, nn

from anysubset.errors import InputError
from anysubset.system.files import atomic_write
from anysubset.system.input_files import check_file, json_of
from anysubset.system.schema import Anything, Kind, Named, check

ANY_FACTS = Named(Anything())


def save(path: Path, tensors: Mapping[str, Tensor], facts: Mapping[str, Any], writer: str | None = None) -> None:
    """Write tensors and facts to a file; a process that is killed leaves the old file or the new one.

    facts: anything that JSON can hold. writer: as for `atomic_write`.
    """
    stored = {name: tensor.detach().contiguous().cpu() for name, tensor in tensors.items()}
    with atomic_write(path, writer) as temporary:
        # Not `save_file`, which writes to a temporary file of its own that would stay behind after a kill.
        temporary.write_bytes(serialised(stored, metadata={"facts": json.dumps(facts)}))


def load(path: Path, kind: Kind = ANY_FACTS) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Read the tensors, on the CPU, and the facts of a file.

    kind: schema of the facts.

    Raises:
        InputError: if there is no such file, `save` did not write it, it is damaged, or its facts are of another kind.
    """
    if not path.exists() or path.is_dir():
        raise InputError(f"There is no checkpoint {path}.")
    check_file(path)
    try:
        with safe_open(path, framework="pt", device="cpu") as stored:
            tensors = {name: stored.get_tensor(name) for name in stored.keys()}  # noqa: SIM118 (not a dict)
            text = facts_in(stored)
    except Exception as error:  # What is damaged can raise anything.
        raise InputError(f"{path} is not a checkpoint of anysubset, or is damaged.") from error
    return tensors, checked(path, text, kind, "checkpoint")


def read_facts(path: Path, kind: Kind = ANY_FACTS) -> dict[str, Any]:
    """Read the facts of a file without reading its tensors; {} if there is no such file.

    kind: schema of the facts.

    Raises:
        InputError: if `save` did not write the file, it is damaged, or its facts are of another kind.
    """
    if not path.exists() or path.is_dir():
        return {}
    check_file(path)
    try:
        with safe_open(path, framework="np") as stored:
            text = facts_in(stored)
    except Exception:
        raise InputError(f"{path} is not a file of anysubset, or is damaged.") from None
    return checked(path, text, kind, "file")


def facts_in(stored: Any) -> str:
    """Facts from the header of an open safetensors file, in JSON."""
    return str((stored.metadata() or {})["facts"])


def checked(path: Path, text: str, kind: Kind, what: str) -> dict[str, Any]:
    """The facts of a file. Raises InputError if they are not of their kind. what: the file is called in the message."""
    try:
        facts: dict[str, Any] = json_of(text, "")
    except InputError:
        raise InputError(f"{path} is not a {what} of anysubset, or is damaged: its facts are not JSON.") from None
    check(facts, kind, str(path))
    return facts


def load_module(
    tensors: Mapping[str, Tensor], module: nn.Module, source: Path, names: Collection[str] | None = None
) -> None:
    """Load tensors into a module.

    names: of the module's state, what the tensors must hold; everything by default.

    Raises:
        InputError: if names, shapes or types do not match the module.
    """
    own = module.state_dict()
    for name, tensor in tensors.items():
        if name in own and tensor.dtype != own[name].dtype:
            raise InputError(
                f"{source} does not hold the weights of this experiment's method: {name} is {tensor.dtype}, not "
                f"{own[name].dtype}."
            )
    try:
        if names is not None and set(names) != set(tensors):
            raise RuntimeError
        module.load_state_dict(tensors, strict=names is None)
    except RuntimeError:
        raise InputError(f"{source} does not hold the weights of this experiment's method.") from None


def with_prefix(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The same tensors, with a prefix before each name."""
    return {f"{prefix}{name}": tensor for name, tensor in tensors.items()}


def without_prefix(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors whose name starts with a prefix, under their names without it."""
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}
