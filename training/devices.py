"""Where models run: on the accelerator when there is one, in several processes when they were started so."""

import json
import os
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Literal

from eisv_lumen.errors import ConfigurationError, ResourceError

Device = Literal["auto", "cpu", "cuda"]
DEVICES: tuple[Device, ...] = ("auto", "cpu", "cuda")

_PATIENCE = timedelta(hours=24)
"""How long processes wait for each other: the first may wait for another build of the same folder."""


def choose(device: Device) -> Literal["cpu", "cuda"]:
    """The device to use; what transformers and accelerate start afterwards keeps to it.

    Raises:
        ResourceError: "cuda" was asked for and there is none.
    """
    import torch

    there = torch.cuda.is_available()
    if device == "cuda" and not there:
        raise ResourceError(
            found="no CUDA device that PyTorch can use",
            expected="a GPU, its driver and a CUDA build of PyTorch",
            next="pass --device cpu, or install PyTorch for CUDA (pytorch.org says how)",
        )
    if device == "cpu" or not there:
        os.environ["ACCELERATE_USE_CPU"] = "true"
        # Else each process gets a "cpu:0", and PyTorch can restore no checkpoint to a place of that name.
        os.environ["ACCELERATE_TORCH_DEVICE"] = "cpu"
        return "cpu"
    if "WORLD_SIZE" not in os.environ:
        # One process with several GPUs would get the Trainer's DataParallel: slower, and other batches.
        os.environ.setdefault("CUDA_VISIBLE_DEVICES", "0")
    return "cuda"


def current() -> Literal["cpu", "cuda"]:
    """The device that was chosen."""
    import torch

    asked_for_cpu = os.environ.get("ACCELERATE_USE_CPU", "").lower() == "true"
    return "cuda" if torch.cuda.is_available() and not asked_for_cpu else "cpu"


@dataclass(frozen=True)
class Team:
    """The processes that train one model together; the first of them builds the folder.

    Attributes:
        rank: Which of them this one is.
        size: How many there are.
        local_size: How many of them are on this machine.
    """

    rank: int = 0
    size: int = 1
    local_size: int = 1

    @classmethod
    def join(cls, device: Literal["cpu", "cuda"]) -> "Team":
        """The processes that `accelerate launch` or `torchrun` started; this one alone otherwise."""
        found = (("RANK", 0), ("WORLD_SIZE", 1), ("LOCAL_WORLD_SIZE", 1))
        team = cls(*(int(os.environ.get(name, default)) for name, default in found))
        if team.size > 1:
            import torch

            if device == "cuda":
                torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", 0)))
            backend = "cpu:gloo,cuda:nccl" if device == "cuda" else "gloo"
            torch.distributed.init_process_group(backend, timeout=_PATIENCE)
        return team

    @property
    def leads(self) -> bool:
        """Is this the process that builds the folder?"""
        return self.rank == 0

    def share(self, message: Any = None) -> Any:
        """What the first process says, in every process; plain JSON."""
        if self.size == 1:
            return message
        import torch

        said = torch.tensor(list(json.dumps(message).encode()), dtype=torch.uint8)
        length = torch.tensor(len(said))
        torch.distributed.broadcast(length, src=0)
        if not self.leads:
            said = torch.empty(int(length), dtype=torch.uint8)
        torch.distributed.broadcast(said, src=0)
        return json.loads(bytes(said.tolist()))

    def part(self) -> None:
        """Leave the others: what comes now is done alone."""
        if self.size > 1:
            import torch

            torch.distributed.barrier()
            torch.distributed.destroy_process_group()

    def divide(self, batch_size: int, accumulation: int) -> tuple[int, int]:
        """Batch size and accumulation of one process, such that each step sees what one process would see.

        The examples of a step are `batch_size` times `accumulation`, however many processes share them: so
        the number of GPUs changes how long a teacher takes, and not which teacher it becomes.

        Raises:
            ConfigurationError: They cannot be shared equally.
        """
        total = batch_size * accumulation
        if total % self.size:
            raise ConfigurationError(
                found=f"{total} examples per step (batch_size {batch_size} x gradient_accumulation "
                f"{accumulation}) for {self.size} processes",
                expected="a number of processes that divides the examples of a step",
                next=f"start fewer processes, or --set run.gradient_accumulation={self.size}",
            )
        own = total // self.size
        size = max(count for count in range(1, min(batch_size, own) + 1) if own % count == 0)
        return size, own // size
