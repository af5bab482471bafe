"""Folders of models with random weights, of the architectures and in the formats that are published."""

import shutil
from pathlib import Path
from typing import Any

from eisv_lumen import artifact
from eisv_lumen.layouts import STUDENT


def random_student(out: Path, metrics: dict[str, Any] | None = None) -> Path:
    """A student; its FP32 graph stands in for the INT8 one too."""
    import torch

    from training.student.export import export_fp32
    from training.student.tables import new_model

    torch.manual_seed(5)
    model = new_model()
    with artifact.build(out, kind="student", configuration={}) as work:
        assert work is not None
        work.metrics = metrics or {}
        model.config.to_json_file(work.folder / STUDENT.config)
        export_fp32(model, work.folder / STUDENT.fp32)
        shutil.copy(work.folder / STUDENT.fp32, work.folder / STUDENT.int8)
    return out


def random_base_and_teacher(base: Path, teacher: Path, repo_id: str, gate: dict[str, Any]) -> None:
    """A tiny base with the kit's tokenizer, and an adapter that names `repo_id` as its base."""
    from peft import LoraConfig, get_peft_model

    from training.pretrain_base import ModelSettings, new_model, train_tokenizer

    tokenizer = train_tokenizer(512, 0)
    sizes = ModelSettings(hidden_size=32, layers=1, heads=2, kv_heads=1, head_dim=16, intermediate_size=32)
    model = new_model(sizes, tokenizer)
    with artifact.build(base, kind="base", configuration={}) as work:
        assert work is not None
        work.metrics = {"parameters": model.num_parameters()}
        model.save_pretrained(work.folder)
        tokenizer.save_pretrained(work.folder)
    adapter = get_peft_model(model, LoraConfig(r=2, target_modules=["q_proj"], init_lora_weights=False))
    adapter.peft_config["default"].base_model_name_or_path = repo_id
    with artifact.build(teacher, kind="teacher", configuration={}) as work:
        assert work is not None
        work.metrics = {"gate_1": gate}
        adapter.save_pretrained(work.folder, save_embedding_layers=False)
        tokenizer.save_pretrained(work.folder)
        (work.folder / artifact.CARD).unlink(missing_ok=True)
