"""What a training step of Dynamic Sharing on volumes costs beside its FLOPs: operations, and memory.

Four modalities, all 15 cases. In brackets: the figures before affine heads were applied to each modality once, and
before the operations of a case were joined.
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode

from anysubset.batches import Batch, Observed
from anysubset.methods.creation import create_method
from anysubset.methods.method import Step
from anysubset.methods.update import fill_gradients
from anysubset.scenarios import all_scenarios
from anysubset.tasks.segmentation import Segmentation

CONTRASTS = ("flair", "t2", "t1ce", "t1")
REGIONS = {"WT": (1, 2, 4), "TC": (1, 4), "ET": (4,)}


def task_of(size: int) -> Segmentation:
    return Segmentation(CONTRASTS, REGIONS, (size,) * 3)


def batch_of(size: int) -> Batch:
    """One complete patient."""
    shape = (size,) * 3
    inputs = {name: Observed(torch.randn(1, 1, *shape), torch.arange(1)) for name in CONTRASTS}
    return Batch(inputs, torch.rand(1, 3, *shape) > 0.5, ("p0",))


# ------------------------------------------------------------------------------------------------------ operations


class Operations(TorchDispatchMode):
    """Counts the operations that compute or copy tensors, each of which is a launch on a GPU; views are none."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.count += computes(func)
        return func(*args, **(kwargs or {}))


def computes(operation: Any) -> bool:
    """Whether an operation of torch is more than a view, an allocation or a question about a tensor."""
    schema = operation._schema
    is_view = any(one.alias_info is not None and not one.alias_info.is_write for one in schema.returns)
    in_place = any(argument.alias_info is not None and argument.alias_info.is_write for argument in schema.arguments)
    gives_tensor = any("Tensor" in str(one.type) for one in schema.returns)
    return in_place or (gives_tensor and not is_view and "empty" not in schema.name)


def test_operations_are_counted_without_views_and_allocations():
    x = torch.zeros(4)
    with Operations() as operations:
        x.view(2, 2)[0].detach()
        torch.empty(3)
        assert operations.count == 0
        (x + 1).mul_(2)
        torch._foreach_add_([x, x], [x, x])
    assert operations.count == 3


def operations_of(name: str, options: Mapping[str, Any] | None = None) -> int:
    """Operations of one step on 16 x 16 x 16 voxels; they do not depend on the width of the network."""
    torch.manual_seed(0)
    method, update = create_method(name, task_of(16), {"width": 0.25, **(options or {})})
    step = Step(cases=tuple(all_scenarios(CONTRASTS)))
    with Operations() as operations:
        assert fill_gradients(method.train(), update, [batch_of(16)], step)
    return operations.count


def test_a_step_of_gmd_takes_at_most_a_third_of_the_operations_of_before():
    # By default, on volumes on the CPU, the cases of a branch are differentiated together (6,297 operations, and 6,797
    # one case at a time).
    assert operations_of("gmd") <= 6_797 / 3


def test_the_operations_of_a_step_are_those_of_its_backward_passes():
    # One case at a time: 32 passes through a branch of 18 convolutions, norms and activations, with 4 levels of
    # pooling, interpolation (one operation) and sums of skip connections, are 2,112 operations (6,797 in all).
    assert operations_of("gmd", {"batched": False}) - 32 * (18 * 3 + 4 * 3) <= 950
    # Four more forward passes, less what is saved by one output channel per region (7,601).
    assert operations_of("gmd", {"recompute": True}) - 32 * (18 * 3 + 4 * 3) <= 1_220
    assert operations_of("sharing") <= 1_150  # (1,403)
