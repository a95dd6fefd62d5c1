"""Check that all ranks have the same settings, data and weights, so that they cannot train apart from each other."""

import platform
from collections.abc import Mapping

import torch
from torch import Tensor

import anysubset
from anysubset.errors import InputError
from anysubset.system import processes
from anysubset.system.fingerprints import Fingerprints, hash_of

MOST = 3  # Differences that a message names.

SETTINGS = "Give all ranks the same files, options and versions."
DATA = "Let data.root lead all ranks to the same files: a shared folder, or equal copies."
WEIGHTS = "Run the same code on all ranks, and draw initial weights from torch's generator alone."
CHECKPOINT = "Let --run lead all ranks to one folder that they share."


def versions() -> dict[str, str]:
    """Versions of the software on which results depend, by name."""
    return {"the version of anysubset": anysubset.__version__, "the version of torch": torch.__version__}


def check_agreement(what: str, values: Mapping[str, object], remedy: str) -> None:
    """Raise the same InputError on all ranks if a value on one of them differs from that on rank 0 (all-gather).

    Args:
        what: the values are, for the message, such as "settings".
        values: of this rank, by name. They are compared, and shown, as text.
        remedy: what would make them equal, as a sentence.
    """
    texts = {name: str(value) for name, value in values.items()}
    if not processes.several() or len(set(processes.gathered([hash_of(repr(sorted(texts.items())).encode())]))) == 1:
        return
    first = processes.gathered([texts] if processes.rank() == 0 else [])[0]
    who = f"rank {processes.rank()} ({platform.node()})"
    own = differences(first, texts, who)
    lines, total = processes.gathered(own[:MOST]), sum(processes.gathered([len(own)]))
    more = f" and {total - MOST} more" * (total > MOST)
    raise InputError(f"The ranks do not have the same {what}: {', '.join(lines[:MOST])}{more}. {remedy}")


def differences(first: Mapping[str, str], own: Mapping[str, str], who: str) -> list[str]:
    """A phrase for each value that differs from that of rank 0.

    Args:
        first: text of the values of rank 0, by name; a text of 16 hexadecimal digits is a hash.
        own: those of another rank.
        who: the name of that rank.

    >>> differences({"train.steps": "4", "t1 of p1": "0123456789abcdef"}, {"train.steps": "6"}, "rank 1")
    ['train.steps is 6 on rank 1 and 4 on rank 0', 't1 of p1 is missing on rank 1']
    >>> differences({"t1 of p1": "0123456789abcdef"}, {"t1 of p1": "0023456789abcdef", "t2 of p1": ""}, "rank 1")
    ['t1 of p1 differs on rank 1', 't2 of p1 is on rank 1 only']
    """
    phrases = []
    for name in dict.fromkeys([*first, *own]):
        if name not in own:
            phrases.append(f"{name} is missing on {who}")
        elif name not in first:
            phrases.append(f"{name} is on {who} only")
        elif own[name] != first[name]:
            is_hash = len(own[name]) == 16 and set(own[name]) <= set("0123456789abcdef")
            values = f"differs on {who}" if is_hash else f"is {own[name]} on {who} and {first[name]} on rank 0"
            phrases.append(f"{name} {values}")
    return phrases


def check_same_data(splits: Mapping[str, Fingerprints]) -> None:
    """Raise InputError with the first samples and parts in which a rank reads other data than rank 0.

    splits: by name, by id of the sample, by part: the hash.
    """
    if not processes.several():
        return
    samples = {f"{sample} in {split}": "" for split, prints in splits.items() for sample in prints}
    parts = {
        f"{part.strip('()')} of {sample} in {split}": value
        for split, prints in splits.items()
        for sample, of_sample in prints.items()
        for part, value in of_sample.items()
    }
    check_agreement("data", samples | parts, DATA)


def check_same_weights(weights: Mapping[str, Tensor]) -> None:
    """Raise InputError with the first weights that differ between ranks in a bit. weights: tensors by name."""
    if not processes.several():
        return
    hashes = {
        name: hash_of(str((value.dtype, tuple(value.shape))).encode(), bytes_of(value))
        for name, value in weights.items()
    }
    check_agreement("weights before training", hashes, WEIGHTS)


def bytes_of(value: Tensor) -> bytes:
    """The bytes of a tensor, of any type of number."""
    flat = value.detach().cpu().contiguous().reshape(-1)
    return flat.view(torch.uint8).numpy().tobytes()
