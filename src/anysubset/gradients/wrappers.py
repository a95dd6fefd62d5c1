"""Refuse wrappers and modules with which the rows of several processes would be wrong without an error."""

from collections.abc import Iterable

from torch import Tensor, nn
from torch.distributed.fsdp import FSDPModule
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.parallel import DistributedDataParallel

from anysubset.gradients.reach import live_modules


def refuse_wrappers(parameters: Iterable[Tensor]) -> None:
    """Check all modules of this process that hold any of the parameters.

    Raises:
        ValueError: for DistributedDataParallel, for FSDP2 that does not reshard parameters after a backward pass or
            does not reduce gradients, and for batch norm without synchronisation.
    """
    identities = {id(parameter) for parameter in parameters}
    for module in live_modules():
        if not any(id(parameter) in identities for parameter in module.parameters(recurse=not is_plain(module))):
            continue
        if isinstance(module, DistributedDataParallel):
            raise ValueError(
                "The model is wrapped in DistributedDataParallel, which reduces the gradient of one case only, or the "
                "decoupled gradient: give GMD and the training loop the plain module; GMD reduces the rows itself."
            )
        if isinstance(module, FSDPModule):
            refuse_sharding(module)
        if isinstance(module, _BatchNorm) and not isinstance(module, nn.SyncBatchNorm):
            raise ValueError(
                "BatchNorm computes its statistics from the samples of one process, so the rows would depend on how "
                "samples are distributed: use nn.SyncBatchNorm.convert_sync_batchnorm, group norm or layer norm."
            )


def is_plain(module: nn.Module) -> bool:
    """Whether a module is checked for its own parameters only, not for those of its submodules."""
    return not isinstance(module, DistributedDataParallel | FSDPModule)


def refuse_sharding(module: FSDPModule) -> None:
    """Raise ValueError for FSDP2 settings with which several backward passes per forward pass give wrong gradients."""
    state = module._get_fsdp_state()
    for group in state._fsdp_param_groups:
        if not group.reshard_after_backward:
            raise ValueError(
                "FSDP2 with set_reshard_after_backward(False) keeps stale gradients between the backward passes of "
                "the cases: leave it True."
            )
        if not (group.reduce_grads and group.all_reduce_grads):
            raise ValueError(
                "FSDP2 with set_requires_gradient_sync(False) does not sum the rows over the processes: leave it "
                "True, and accumulate micro-batches with GMD.accumulate."
            )
