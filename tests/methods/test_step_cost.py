"""What a training step of Dynamic Sharing on volumes costs beside its FLOPs: operations, and memory.

Four modalities, all 15 cases. In brackets: the figures before affine heads were applied to each modality once, and
before the operations of a case were joined.
"""

from collections.abc import Mapping
from typing import Any

import pytest
import torch
from tests.gradients.test_cost import LiveBytes
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode

from anysubset.batches import Batch, Observed, keep
from anysubset.gradients.branches import Branch
from anysubset.gradients.stored import Stored
from anysubset.methods.creation import create_method
from anysubset.methods.method import Step
from anysubset.methods.update import Decoupled, fill_gradients
from anysubset.scenarios import all_scenarios, scenario_name
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
    step, batch = Step(cases=tuple(all_scenarios(CONTRASTS))), batch_of(16)
    with Operations() as operations:
        assert fill_gradients(method.train(), update, [batch], step)
    return operations.count


def test_a_step_of_gmd_takes_at_most_a_third_of_the_operations_of_before():
    # By default, on volumes on the CPU, the cases of a branch are differentiated together (6,298 operations, and 6,798
    # one case at a time).
    assert operations_of("gmd") <= 6_798 / 3


def test_the_operations_of_a_step_are_those_of_its_backward_passes():
    # One case at a time: 32 passes through a branch of 18 convolutions, norms and activations, with 4 levels of
    # pooling, interpolation (one operation) and sums of skip connections, are 2,112 operations (6,798 in all).
    assert operations_of("gmd", {"batched": False}) - 32 * (18 * 3 + 4 * 3) <= 950
    # Four more forward passes, less what is saved by one output channel per region (7,602).
    assert operations_of("gmd", {"recompute": True}) - 32 * (18 * 3 + 4 * 3) <= 1_220
    assert operations_of("sharing") <= 1_150  # (1,403)


# ---------------------------------------------------------------------------------------------------------- memory


def fake(tensor: Tensor, mode: FakeTensorMode) -> Tensor:
    """A tensor of the same shape and dtype that has no values and takes no memory."""
    return FakeTensor(mode, tensor.to("meta"), torch.device("cpu"))


def gigabytes(half: bool = False, backward: bool = False, **options: Any) -> float:
    """GB of live tensors in a step on 128^3 voxels: after the forward pass, or at most until the rows are computed.

    Each tensor has its real size, but no values. 0.2 GB of the maximum are the rows, whatever the size of the volume.
    """
    method, _ = create_method("gmd", task_of(128), {})
    mode = FakeTensorMode(allow_non_fake_inputs=True)
    for module in method.modules():
        for name, parameter in module._parameters.items():
            module._parameters[name] = None if parameter is None else nn.Parameter(fake(parameter.detach(), mode))
    with mode:
        update = Decoupled(method.train(), **options)
        inputs = {name: fake(torch.empty(1, 1, 128, 128, 128, device="meta"), mode) for name in CONTRASTS}
        target = fake(torch.empty(1, 3, 128, 128, 128, dtype=torch.bool, device="meta"), mode)
        with LiveBytes() as memory:
            with torch.autocast("cpu", torch.bfloat16, enabled=half):
                features = {name: update.call_encoder(method.network.encode, name, x) for name, x in inputs.items()}
                losses = {
                    scenario_name(case): method.task.loss(method.network.decode(keep(features, case)), target)
                    for case in all_scenarios(CONTRASTS)
                }
            del features
            if not backward:
                return memory.live / 1e9
            update.gmd.accumulate(losses)
    return memory.peak / 1e9


def test_all_cases_of_128_voxels_cubed_hold_less_than_half_of_before():
    assert gigabytes() <= 4.1  # (10.0)
    assert gigabytes(half=True) <= 2.4  # (6.2)
    # Four outputs and the probabilities of 15 cases, in three channels (3.3).
    assert gigabytes(recompute=True) == pytest.approx((4 + 15) * 3 * 128**3 * 4 / 1e9, rel=1e-3)


@pytest.mark.slow
def test_the_backward_pass_takes_little_more():
    assert gigabytes(backward=True, batched=False) <= 5.5  # (10.9)
    assert gigabytes(backward=True, recompute=True) <= 2.4  # (5.6)
    # Four patches of a batch on a GPU of 24 GB (27).
    assert 4 * gigabytes(half=True, backward=True, batched=False) <= 13


def test_the_gradient_that_arrives_from_a_case_is_in_memory_once(monkeypatch: pytest.MonkeyPatch):
    arrived: list[Tensor] = []
    add_branch = Stored.add_branch

    def noted(self: Stored, root: Tensor, branch: Branch, arriving: Mapping[int, Tensor], *others: Any) -> None:
        arrived.extend(arriving.values())
        add_branch(self, root, branch, arriving, *others)

    monkeypatch.setattr(Stored, "add_branch", noted)
    method, update = create_method("gmd", task_of(16), {"width": 0.25, "recompute": True})
    fill_gradients(method.train(), update, [batch_of(16)], Step(cases=tuple(all_scenarios(CONTRASTS))))
    # 32 modalities of 15 cases, which all of a case share: one gradient of the mean of its outputs.
    assert len(arrived) == 32
    assert len({gradient.untyped_storage().data_ptr() for gradient in arrived}) == 15
    assert all(gradient.shape == (1, 3, 16, 16, 16) for gradient in arrived)
