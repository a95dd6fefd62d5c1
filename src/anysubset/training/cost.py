"""Cost of training: FLOPs of the first steps of each stage and peak memory, kept in the `cost.json` of a run."""

import json
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode, sdpa_backward_flop_count, sdpa_flop_count

from anysubset.system.files import atomic_write
from anysubset.system.run_files import COST, read_object


def flops_of(step: Callable[[], Any]) -> int:
    """Run a function and return its FLOPs: matrix products, convolutions and attention, forward and backward."""
    with flop_counter() as flops_so_far:
        step()
    return flops_so_far()


@contextmanager
def flop_counter() -> Iterator[Callable[[], int]]:
    """Context manager that counts FLOPs; its value is a function that returns the number so far.

    Counts matrix products, convolutions and attention as PyTorch does: a multiply-add counts as two.
    """

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
    """Peak memory in bytes: of tensors on a GPU, of the whole process on a CPU; None on systems without this figure."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    try:
        import resource
    except ImportError:  # Windows.
        return None
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


class CostLog:
    """The file `cost.json`: cost of each stage of a training, and peak memory.

    `stages` holds for each stage, in order, its number of `steps` and the list `flops`, the FLOPs of each of its first
    steps over all processes. `most_bytes` is the peak memory of the first process.

    Args:
        path: of the file; if it exists, its content is continued.
        until: step of the checkpoint from which the run resumes; FLOPs of later steps are dropped.
    """

    def __init__(self, path: Path, until: int) -> None:
        self.path = path
        stored = read_object(path, COST)
        self.steps: dict[str, int] = {}
        self.flops: dict[str, list[int]] = {}
        self.most_bytes: int | None = stored.get("most_bytes")
        for name, cost in stored.get("stages", {}).items():
            self.steps[name] = cost["steps"]
            self.flops[name] = cost["flops"][: max(0, until)]
            until -= cost["steps"]

    def begin_stage(self, name: str, steps: int) -> None:
        """Record the number of steps of a stage, without dropping FLOPs that were counted before."""
        self.steps[name] = steps
        self.flops.setdefault(name, [])

    def save(self, most_bytes: int | None) -> None:
        """Write the file atomically.

        Args:
            most_bytes: peak memory of this process so far, in bytes; None if it is unknown.
        """
        peaks = [peak for peak in (self.most_bytes, most_bytes) if peak is not None]
        self.most_bytes = max(peaks, default=None)
        stages = {name: {"steps": steps, "flops": self.flops[name]} for name, steps in self.steps.items()}
        with atomic_write(self.path) as temporary:
            facts = {"stages": stages, "most_bytes": self.most_bytes}
            temporary.write_text(json.dumps(facts) + "\n", encoding="utf-8")
