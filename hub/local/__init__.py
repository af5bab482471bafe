"""A Hub on this machine: real git repositories behind the interface that `huggingface_hub` speaks."""

from hub.local.process import LocalHub, start

__all__ = ["LocalHub", "start"]
