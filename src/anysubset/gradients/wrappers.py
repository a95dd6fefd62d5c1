"""What wraps or holds a model's parameters and would make distributed rows wrong without a word; it is refused."""

import gc
from collections.abc import Iterable

from torch import Tensor, nn
from torch.distributed.fsdp import FSDPModule
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.parallel import DistributedDataParallel


def refuse_wrappers(parameters: Iterable[Tensor]) -> None:
    """Looks at the modules that hold some parameters, wherever they are in this process.

    Raises:
        ValueError: with the reason, for DistributedDataParallel, FSDP2 that keeps parameters whole after a backward
            pass or does not reduce gradients, and batch norm without synchronisation.
    """
    ours = {id(parameter) for parameter in parameters}
    for module in live_modules():
        if not any(id(parameter) in ours for parameter in module.parameters(recurse=not is_plain(module))):
            continue
        if isinstance(module, DistributedDataParallel):
            raise ValueError(
                "The model is wrapped in DistributedDataParallel, which reduces the gradient of one case only, or what "
                "is already decoupled: give GMD and the training loop the plain module; GMD reduces the rows itself."
            )
        if isinstance(module, FSDPModule):
            refuse_sharding(module)
        if isinstance(module, _BatchNorm) and not isinstance(module, nn.SyncBatchNorm):
            raise ValueError(
                "A BatchNorm takes its statistics from the samples of one process, so the rows would depend on how "
                "samples are spread: use nn.SyncBatchNorm.convert_sync_batchnorm, group norm or layer norm."
            )


def live_modules() -> list[nn.Module]:
    """Every module of this process."""
    # By type alone: asking an unknown object for its class could wake what is lazy.
    return [thing for thing in gc.get_objects() if issubclass(type(thing), nn.Module)]


def is_plain(module: nn.Module) -> bool:
    """Whether only a module's own parameters count, not those of the modules in it."""
    return not isinstance(module, DistributedDataParallel | FSDPModule)


def refuse_sharding(module: FSDPModule) -> None:
    """FSDP2 settings under which several backward passes after one forward pass give wrong or local gradients."""
    state = module._get_fsdp_state()
    for group in state._fsdp_param_groups:
        if not group.reshard_after_backward:
            raise ValueError(
                "FSDP2 with set_reshard_after_backward(False) keeps stale gradients between the backward passes of "
                "the cases: leave it True."
            )
        if not (group.reduce_grads and group.all_reduce_grads):
            raise ValueError(
                "FSDP2 with set_requires_gradient_sync(False) leaves the rows of each process to itself: leave it "
                "True, and accumulate micro-batches with GMD.accumulate."
            )
