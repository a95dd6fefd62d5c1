"""Checkpoint files: tensors with facts (JSON), written atomically.

The format is safetensors, with the facts in the header. Unlike a pickle, reading it never runs code.
"""

import json
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save as serialised
from torch import Tensor, nn

from anysubset.errors import InputError
from anysubset.system.files import atomic_write


def save(path: Path, tensors: Mapping[str, Tensor], facts: Mapping[str, Any], writer: str | None = None) -> None:
    """Write tensors and facts to a file; a process that is killed leaves the old file or the new one.

    facts: anything that JSON can hold. writer: as for `atomic_write`.
    """
    stored = {name: tensor.detach().contiguous().cpu() for name, tensor in tensors.items()}
    with atomic_write(path, writer) as temporary:
        # Not `save_file`, which writes to a temporary file of its own that would stay behind after a kill.
        temporary.write_bytes(serialised(stored, metadata={"facts": json.dumps(facts)}))


def load(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Read the tensors, on the CPU, and the facts of a file.

    Raises:
        InputError: if there is no such file, `save` did not write it, or it is damaged.
    """
    if not path.is_file():
        raise InputError(f"There is no checkpoint {path}.")
    try:
        with safe_open(path, framework="pt", device="cpu") as stored:
            tensors = {name: stored.get_tensor(name) for name in stored.keys()}  # noqa: SIM118 (not a dict)
            facts = facts_in(stored)
    except (SafetensorError, KeyError, ValueError) as error:
        raise InputError(f"{path} is not a checkpoint of anysubset, or is damaged.") from error
    return tensors, facts


def read_facts(path: Path) -> dict[str, Any]:
    """Read the facts of a file without reading its tensors; {} if there is no such file.

    Raises:
        InputError: if `save` did not write the file, or it is damaged.
    """
    if not path.is_file():
        return {}
    try:
        with safe_open(path, framework="np") as stored:
            return facts_in(stored)
    except (SafetensorError, KeyError, ValueError):
        raise InputError(f"{path} is not a file of anysubset, or is damaged.") from None


def facts_in(stored: Any) -> dict[str, Any]:
    """Facts from the header of an open safetensors file."""
    facts: dict[str, Any] = json.loads((stored.metadata() or {})["facts"])
    return facts


def load_module(
    tensors: Mapping[str, Tensor], module: nn.Module, source: Path, names: Collection[str] | None = None
) -> None:
    """Load tensors into a module.

    names: of the module's state, what the tensors must hold; everything by default.

    Raises:
        InputError: if names or shapes do not match the module.
    """
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
