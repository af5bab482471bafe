"""Loading base models, tokenizers and adapters, with an error for each way in which that fails."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from eisv_lumen.artifact import Manifest
from eisv_lumen.errors import ArtifactError, ConfigurationError, HubError, ResourceError
from training import devices, memory

Precision = Literal["fp32", "bf16"]
BYTES: dict[Precision, int] = {"fp32": 4, "bf16": 2}
"""Bytes of one weight."""
_TOKENIZER_FILES = ("tokenizer.json", "tokenizer.model", "vocab.json")


@dataclass(frozen=True)
class BaseReference:
    """Which base model an adapter belongs to.

    Attributes:
        repo: Its Hub repository, which the adapter names as its base.
        revision: Branch, tag or commit; None for the default branch.
    """

    repo: str
    revision: str | None = None


def base_inputs(base: Path | None) -> dict[str, Path]:
    """What a stage records of a local base model: its manifest, or its configuration where it has none.

    Raises:
        ArtifactError: The folder is no model folder.
    """
    if base is None:
        return {}
    if (base / "manifest.json").is_file():
        Manifest.read(base, kind="base")
        return {"base": base}
    if not (base / "config.json").is_file():
        raise ArtifactError(
            found=f"{base} has no config.json",
            expected="a transformers model folder",
            next="python -m training.pretrain_base --config training/configs/base-tiny.yaml --out DIR",
        )
    return {"base": base / "config.json"}


def load_tokenizer(base: Path | None, reference: BaseReference) -> Any:
    """The tokenizer of a base model, padding on the left, with a chat template and an end token.

    Raises:
        ConfigurationError: It has no chat template or no end token.
        ArtifactError: The local folder cannot be loaded.
        HubError: The repository cannot be reached.
    """
    from transformers import AutoTokenizer

    if base is not None and not any((base / name).is_file() for name in _TOKENIZER_FILES):
        # Transformers would say that None has no endswith.
        raise ArtifactError(
            found=f"{base} has no tokenizer ({', '.join(_TOKENIZER_FILES)})",
            expected="a transformers model folder with its tokenizer",
            next="make it again, or download it: hf download " + reference.repo,
        )
    tokenizer = _loaded(AutoTokenizer, base, reference)
    if not tokenizer.chat_template or tokenizer.eos_token_id is None:
        lacks = "end token" if tokenizer.chat_template else "chat template"
        raise ConfigurationError(
            found=f"the tokenizer of {base or reference.repo} has no {lacks}",
            expected="an instruction-tuned base model, whose tokenizer knows how a conversation is written",
            next="choose such a base (e.g. Qwen/Qwen3-4B), or add chat_template.jinja to its folder",
        )
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    tokenizer.padding_side = "left"
    return tokenizer


def load_config(base: Path | None, reference: BaseReference) -> Any:
    """The configuration of a base model, which tells its size before its weights are fetched.

    Raises:
        ArtifactError: The local folder cannot be loaded.
        HubError: The repository cannot be reached.
    """
    from transformers import AutoConfig

    return _loaded(AutoConfig, base, reference)


def load_base(base: Path | None, reference: BaseReference, precision: Precision = "fp32") -> Any:
    """A base model from a folder, or from its repository where no folder is given.

    Raises:
        ArtifactError: The local folder cannot be loaded, or its weights are not those of its architecture.
        HubError: The repository cannot be reached.
        ResourceError: It does not fit into memory.
    """
    import torch
    from transformers import AutoModelForCausalLM

    kind = {"fp32": torch.float32, "bf16": torch.bfloat16}[precision]
    try:
        model, report = _loaded(AutoModelForCausalLM, base, reference, dtype=kind, output_loading_info=True)
    except (MemoryError, torch.OutOfMemoryError) as error:
        raise out_of_memory(str(base or reference.repo)) from error
    if report["missing_keys"]:
        # Transformers would go on with random ones.
        raise ArtifactError(
            found=f"{base or reference.repo} has no weights for {sorted(report['missing_keys'])[0]}",
            expected="a causal language model with all weights of its config.json",
            next="choose a language model, or download it again: hf download " + reference.repo,
        )
    return model


def load_teacher(
    teacher: Path,
    base: Path | None,
    precision: Precision | None = None,
    device: devices.Device = "auto",
) -> tuple[Any, Any]:
    """A teacher ready to answer: its adapter on the base model, and its tokenizer.

    Args:
        teacher: The teacher's folder.
        base: The base model's folder; None for the repository that the adapter names.
        precision: Of the weights; None for the one it was trained in.
        device: Where it shall answer.

    Raises:
        ArtifactError: The folder is no teacher, or belongs to another base model.
        HubError: No base folder is given and the base's repository cannot be reached.
        ResourceError: There is no such device, or the model does not fit into its memory.
    """
    from peft import PeftConfig, PeftModel

    run = Manifest.read(teacher, kind="teacher").configuration.get("run", {})
    kind: Precision = precision or run.get("precision", "fp32")
    place = devices.choose(device)
    configuration = PeftConfig.from_pretrained(str(teacher))
    reference = BaseReference(configuration.base_model_name_or_path, configuration.revision)
    tokenizer = load_tokenizer(teacher, reference)
    wanted = memory.needed(load_config(base, reference), BYTES[kind])
    memory.require_room(str(base or reference.repo), wanted, memory.available(place))
    model = load_base(base, reference, kind)
    try:
        adapted = PeftModel.from_pretrained(model, str(teacher))
    except (RuntimeError, ValueError) as error:
        raise ArtifactError(
            found=f"the adapter in {teacher} does not fit {base or reference.repo}",
            expected=f"its base model, {reference.repo}",
            next="pass the base that the teacher was trained on as --base",
        ) from error
    return ready_to_answer(adapted, kind).to(place), tokenizer


def ready_to_answer(adapted: Any, precision: Precision) -> Any:
    """A peft model for inference: merged where that is exact enough.

    What an adapter adds to a weight is often smaller than the distance between neighbouring bfloat16
    numbers, and merging would round it away.
    """
    model = adapted.merge_and_unload() if precision == "fp32" else adapted
    model = model.eval()
    model.requires_grad_(False)
    return model


def out_of_memory(what: str) -> ResourceError:
    """The error for a model that does not fit."""
    return ResourceError(
        found=f"{what} does not fit into memory",
        expected="room for the model, its gradients and one batch",
        next="lower batch_size (and raise gradient_accumulation), set gradient_checkpointing: true and "
        "precision: bf16, or take a smaller base",
    )


def _loaded(kind: Any, base: Path | None, reference: BaseReference, **options: Any) -> Any:
    from safetensors import SafetensorError

    if base is not None:
        base_inputs(base) if kind.__name__ != "AutoTokenizer" else None
        try:
            return kind.from_pretrained(str(base), local_files_only=True, **options)
        except (OSError, ValueError, KeyError, RuntimeError, SafetensorError) as error:
            _not_memory(error)
            raise ArtifactError(
                found=f"{base}: {str(error).splitlines()[0]}",
                expected="a transformers model folder with its tokenizer",
                next="make it again, or download it: hf download " + reference.repo,
            ) from error
    try:
        return kind.from_pretrained(reference.repo, revision=reference.revision or "main", **options)
    except (OSError, ValueError, RuntimeError, SafetensorError) as error:
        _not_memory(error)
        raise HubError(
            found=f"{reference.repo} at {reference.revision or 'main'}: {str(error).splitlines()[0]}",
            expected="a base model on the Hub that this machine may download",
            next="check the network, the name and your access (hf auth login), or pass a folder as --base",
        ) from error


def _not_memory(error: Exception) -> None:
    """Let the error of a full GPU, a kind of RuntimeError, pass to where it is understood."""
    import torch

    if isinstance(error, torch.OutOfMemoryError):
        raise error
