"""From the name of a device to a torch.device."""

from typing import Any

from anysubset.errors import InputError


def device_of(name: str) -> Any:
    """The torch.device called `cpu`, `cuda` or `cuda:N`; `auto` is the GPU if there is one, and the CPU otherwise.

    Raises:
        InputError: if this machine does not have the device.
    """
    import torch  # Not at the top: the command line imports this file, and must start without delay.

    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.empty(0, device=name).device
    except (RuntimeError, AssertionError) as error:
        raise InputError(f"Device {name!r} is not available: {str(error).splitlines()[0]}") from error
    if device.type == "meta":
        raise InputError("Device 'meta' holds no numbers: choose auto, cpu, cuda or cuda:N.")
    return torch.device(name)
