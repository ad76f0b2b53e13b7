"""A model's frozen weights, shared out among the processes that train it, so that none of them holds them all.

Belongs here: sharing out and gathering, by torch's `fully_shard` (FSDP2). Not here: what is trained. Every process
holds that whole, with its moments, and DistributedDataParallel averages its gradients.

A language model that learns through LoRA is nearly all frozen. Frozen weights have no gradient and no moments, and no
training writes them down: it is enough that a block's are gathered before it runs, forwards and backwards, and let go.
All processes must therefore run the same blocks in the same order, in a validation too.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from copy import deepcopy

import torch
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor
from torch.nn.parallel import DistributedDataParallel

from models.training.processes import Processes

logger = logging.getLogger("slmrec.training")


@contextmanager
def frozen_in_shards(model: nn.Module, processes: Processes) -> Iterator[None]:
    """Inside, each process holds its part of the frozen weights of the model's blocks; afterwards all, on the CPU.

    Blocks are the members of a `ModuleList`, such as a decoder's layers. What is frozen outside of them stays whole, as
    does what isn't of a floating-point type, such as bitsandbytes' weights. What the blocks compute stays the same to
    the last bit. The parameters are the same objects before and after, under the same names.
    """
    lists = [part for part in model.modules() if isinstance(part, nn.ModuleList)]
    whole = [(blocks, index, block) for blocks in lists for index, block in enumerate(blocks) if _frozen(block)]
    for blocks, index, block in whole:
        blocks[index] = _in_shards(block, processes)
    parts = {name: one for name, one in model.named_parameters() if isinstance(one, DTensor)}
    leave_alone = DistributedDataParallel._set_params_and_buffers_to_ignore_for_model  # noqa: SLF001 (the only way)
    leave_alone(model, list(parts))
    if processes.main and parts:
        total, own = (sum(one.numel() for one in of) for of in (parts.values(), [p.to_local() for p in parts.values()]))
        logger.info("of %s frozen weights this process, one of %d, holds %s", f"{total:,}", processes.count, f"{own:,}")
    elif processes.main:
        logger.info("no block's weights are frozen: each of %d processes holds the whole model", processes.count)
    yield  # after an error the other processes don't come to gather, and the model is lost
    for blocks, index, block in whole:
        sharded, blocks[index] = dict(blocks[index].named_parameters()), block
        for name, parameter in _frozen(block).items():
            part = sharded[name]
            assert isinstance(part, DTensor)
            parameter.data = part.full_tensor().cpu()
    model.to("cpu")
    leave_alone(model, [])


def _frozen(block: nn.Module) -> dict[str, nn.Parameter]:
    parameters = block.named_parameters()
    return {name: one for name, one in parameters if not one.requires_grad and one.is_floating_point()}


def _in_shards(block: nn.Module, processes: Processes) -> nn.Module:
    """A copy that holds this process's part of what is frozen, of which the block itself keeps nothing.

    A copy, since torch can't undo it. What is trained, and buffers, are the block's own.
    """
    frozen = set(_frozen(block).values())
    own = [tensor for tensor in (*block.parameters(), *block.buffers()) if tensor not in frozen]
    copy = deepcopy(block, {id(tensor): tensor for tensor in own})
    for parameter in frozen:
        parameter.data = parameter.data.new_empty(0)
    mesh = init_device_mesh(torch.device(processes.device).type, (processes.count,))
    ignored = set(copy.parameters()) - set(_frozen(copy).values())
    fully_shard(copy, mesh=mesh, reshard_after_forward=True, ignored_params=ignored)
    return copy
