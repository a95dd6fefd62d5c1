"""The device that a setting means."""

from typing import Any

from anysubset.errors import InputError


def device_of(name: str) -> Any:
    """A torch.device: what `auto`, `cpu`, `cuda` or `cuda:N` means here.

    Raises:
        InputError: if it is not there.
    """
    import torch  # Here, so that the command line can import this file without loading it.

    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        torch.empty(0, device=name)
    except (RuntimeError, AssertionError) as error:
        raise InputError(f"Device {name!r} is not there: {str(error).splitlines()[0]}") from error
    return torch.device(name)
