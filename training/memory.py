"""How much memory a model takes, reckoned before it is loaded, and how much there is."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from eisv_lumen.errors import ResourceError

_CGROUP = Path("/sys/fs/cgroup")
_GIB = 1 << 30
_TRAINED_BYTES = 16
"""Bytes per trained parameter: its float32 value, its gradient, and the two moments of Adam."""


@dataclass(frozen=True)
class MemoryNeeded:
    """Bytes that a model takes while it is used.

    Attributes:
        parameters: Number of parameters of the base.
        weights: Bytes of the base's weights.
        adapter: Bytes of the adapter with its gradients and the optimizer's state.
        activations: Bytes of what one batch leaves for the backward pass, logits included.
    """

    parameters: int
    weights: int
    adapter: int = 0
    activations: int = 0

    @property
    def total(self) -> int:
        """All of them together, in bytes."""
        return self.weights + self.adapter + self.activations


@dataclass(frozen=True)
class Batch:
    """What one forward pass reads.

    Attributes:
        size: Sequences.
        length: Tokens of the longest.
        answer: Tokens of them whose logits are computed.
    """

    size: int
    length: int
    answer: int


def needed(
    config: Any,
    bytes_per_weight: int,
    *,
    rank: int = 0,
    targets: tuple[str, ...] = (),
    batch: Batch | None = None,
    checkpointing: bool = False,
) -> MemoryNeeded:
    """What a base model takes: to answer, or with a `batch` to train an adapter on it.

    Args:
        config: The transformers configuration of the model; no weights are needed.
        bytes_per_weight: 4 for float32, 2 for bfloat16.
        rank: Rank of the adapter.
        targets: Names of the layers it sits on.
        batch: What a training step reads.
        checkpointing: Whether activations inside of a layer are computed again for the backward pass.
    """
    import torch
    from transformers import AutoModelForCausalLM

    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config)
    parameters = sum(parameter.numel() for parameter in model.parameters())
    adapted = sum(
        rank * (layer.in_features + layer.out_features)
        for name, layer in model.named_modules()
        if isinstance(layer, torch.nn.Linear) and name.rpartition(".")[2] in targets
    )
    return MemoryNeeded(
        parameters=parameters,
        weights=parameters * bytes_per_weight,
        adapter=adapted * _TRAINED_BYTES,
        activations=_activations(model.config, batch, bytes_per_weight, checkpointing) if batch else 0,
    )


def _activations(config: Any, batch: Batch, bytes_per_value: int, checkpointing: bool) -> int:
    hidden, layers = config.hidden_size, config.num_hidden_layers
    head = getattr(config, "head_dim", None) or hidden // config.num_attention_heads
    heads = config.num_attention_heads + getattr(config, "num_key_value_heads", config.num_attention_heads)
    # Of each layer: two residuals and norms, queries, keys and values before and after rotation, the four
    # intermediate products. Attention itself leaves nothing of quadratic size in the fused kernels.
    inside = 6 * hidden + 2 * heads * head + 4 * getattr(config, "intermediate_size", 4 * hidden)
    per_token = layers * hidden + inside if checkpointing else layers * inside
    logits = 3 * 4 * (batch.answer + 1) * config.vocab_size  # themselves, their logarithm, its gradient
    return batch.size * (batch.length * per_token * bytes_per_value + logits)


def available(device: Literal["cpu", "cuda"], processes: int = 1) -> int:
    """Bytes that one of `processes` on this machine may take; each has a GPU of its own."""
    if device == "cuda":
        import torch

        return int(torch.cuda.mem_get_info()[0])
    import psutil

    return min(psutil.virtual_memory().available, _left_in_container()) // processes


def require_room(what: str, wanted: MemoryNeeded, there: int) -> None:
    """Refuse a model that does not fit, before it is downloaded and loaded.

    Raises:
        ResourceError: It does not fit.
    """
    if wanted.total <= there:
        return
    raise ResourceError(
        found=f"{there / _GIB:.1f} GiB of free memory for {what}",
        expected=f"about {wanted.total / _GIB:.1f} GiB: {wanted.weights / _GIB:.1f} for "
        f"{wanted.parameters / 1e9:.2f} billion weights, {wanted.adapter / _GIB:.1f} for adapter and "
        f"optimizer, {wanted.activations / _GIB:.1f} for one batch",
        next="free some, use a larger machine or a smaller base; weights: --set run.precision=bf16; "
        "one batch: --set run.gradient_checkpointing=true, or a smaller run.batch_size with more "
        "run.gradient_accumulation",
    )


def _left_in_container() -> int:
    """Bytes below the limit of a container that this process runs in."""
    try:
        limit = int((_CGROUP / "memory.max").read_text())
        used = dict(line.split() for line in (_CGROUP / "memory.stat").read_text().splitlines())
        return max(limit - int(used["anon"]), 0)
    except (OSError, ValueError, KeyError):  # no container, or one without a limit
        return 1 << 62
