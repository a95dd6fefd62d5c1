"""What training costs: the FLOPs of a step, the most memory that a process held, and where a run keeps both."""

import json
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode, sdpa_backward_flop_count, sdpa_flop_count

from anysubset.system.files import whole


def flops_of(step: Callable[[], Any]) -> int:
    """Of a step: matrix products, convolutions and attention, forward and backward, as PyTorch counts them."""
    with flop_counter() as counted:
        step()
    return counted()


@contextmanager
def flop_counter() -> Iterator[Callable[[], int]]:
    """Counts while it is open; what it gives says how many there were so far."""

    def attention(query: Sequence[int], key: Sequence[int], value: Sequence[int], *_: Any, **__: Any) -> int:
        return int(sdpa_flop_count(query, key, value))

    def attention_backward(
        gradient: Sequence[int], query: Sequence[int], key: Sequence[int], value: Sequence[int], *_: Any, **__: Any
    ) -> int:
        return int(sdpa_backward_flop_count(gradient, query, key, value))

    aten = torch.ops.aten
    missing_on_cpu = {
        aten._scaled_dot_product_flash_attention_for_cpu: attention,
        aten._scaled_dot_product_flash_attention_for_cpu_backward: attention_backward,
    }
    with FlopCounterMode(display=False, custom_mapping=missing_on_cpu) as counter:
        yield lambda: int(counter.get_total_flops())


def most_bytes(device: torch.device) -> int | None:
    """The most that tensors took on a GPU; on a CPU, the most that the whole process did. None where nobody knows."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    try:
        import resource
    except ImportError:  # Windows.
        return None
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


class CostLog:
    """`cost.json`: `flops` of each of the first steps, over all processes, and `most_bytes`, of the first process.

    Args:
        path: of the file; what is in it is gone on with.
        until: the last step of the file that still counts.
    """

    def __init__(self, path: Path, until: int) -> None:
        self.path = path
        stored = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {"flops": [], "most_bytes": None}
        self.flops: list[int] = stored["flops"][:until]
        self.most_bytes: int | None = stored["most_bytes"]

    def save(self, most_bytes: int | None) -> None:
        """Writes the file, whole or not at all.

        most_bytes: of memory, until now; None where nobody knows.
        """
        known = [each for each in (self.most_bytes, most_bytes) if each is not None]
        self.most_bytes = max(known, default=None)
        with whole(self.path) as temporary:
            facts = {"flops": self.flops, "most_bytes": self.most_bytes}
            temporary.write_text(json.dumps(facts) + "\n", encoding="utf-8")
