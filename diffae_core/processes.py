"""Several processes that train the autoencoder and the DDIM together, each on its share of every batch.

What is small (the judge, the prior, the last layer) each of them trains whole.

``torchrun --nproc-per-node 2 train_ddim_mnist.py`` starts them. Alone, every function here changes nothing.
"""

import os
from collections.abc import Iterable

import torch
import torch.distributed as dist
from torch import Tensor


def join_processes() -> None:
    """Join the processes that ``torchrun`` has started; on CUDA each takes a GPU of its own."""
    if int(os.environ.get("WORLD_SIZE", 1)) == 1:
        return
    if int(os.environ["LOCAL_RANK"]) < torch.cuda.device_count():
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    dist.init_process_group()  # gloo on the CPU, nccl on CUDA


def process_count() -> int:
    """How many processes train together."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def is_first_process() -> bool:
    """Whether this process is the one that writes files and speaks."""
    return process_count() == 1 or dist.get_rank() == 0


def my_share(*tensors: Tensor) -> tuple[Tensor, ...]:
    """Of each tensor the rows that are this process's; together the processes have them all."""
    return tensors if process_count() == 1 else tuple(tensor[dist.get_rank() :: process_count()] for tensor in tensors)


def average_over_processes(tensors: Iterable[Tensor]) -> None:
    """Put into each tensor its mean over all processes: of gradients, that of the whole batch."""
    if process_count() == 1:
        return
    tensors = list(tensors)
    joined = torch.cat([tensor.flatten() for tensor in tensors])
    joined = joined if joined.is_cuda else joined.cpu()  # Apple's MPS has no way of its own to meet
    dist.all_reduce(joined)
    joined /= process_count()
    for tensor, mean in zip(tensors, joined.split([tensor.numel() for tensor in tensors])):
        tensor.copy_(mean.view_as(tensor))


def any_process(answer: bool, device: torch.device) -> bool:
    """Whether the answer is yes in any process: all stop together, or none does."""
    if process_count() == 1:
        return answer
    answers = torch.tensor([float(answer)], device=device)
    average_over_processes([answers])
    return answers.item() > 0
