"""Which base model a teacher stands on: the release's own, or the public one that its adapter names."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from eisv_lumen.errors import ArtifactError

_ADAPTER = "adapter_config.json"
_BINDING = {"meta-llama/Llama-3.2-": "llama3.2"}
"""Bases whose licence binds what is made from them, by the beginning of their names."""


@dataclass(frozen=True)
class BaseReference:
    """A base model on the Hub.

    Attributes:
        repo: `namespace/name`.
        revision: Branch, tag or commit that the adapter was trained on; None for the default branch.
        own: Whether it is published with the teacher, under the same tags.
    """

    repo: str
    revision: str | None = None
    own: bool = False

    @property
    def binding_license(self) -> str | None:
        """The Hub's name of the base's licence, where adapters must carry it; None where they are free."""
        found = (name for begin, name in _BINDING.items() if self.repo.startswith(begin))
        return next(found, None)

    @classmethod
    def of_adapter(cls, teacher: Path, own_repo: str) -> Self:
        """What the adapter's configuration names.

        Args:
            teacher: The teacher's folder.
            own_repo: Where the release would publish a base of its own.

        Raises:
            ArtifactError: There is none, or it names no base model.
        """
        path = teacher / _ADAPTER
        try:
            named = json.loads(path.read_text("utf-8"))
            repo, revision = named["base_model_name_or_path"], named.get("revision")
            if not isinstance(repo, str) or not repo or not isinstance(revision, str | None):
                raise TypeError
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise ArtifactError(
                found=f"{path}: {type(error).__name__}",
                expected="the configuration of a peft adapter, which names its base model",
                next="pass --base DIR where the base is the release's own, or train the teacher again",
            ) from error
        # One that is pinned does not follow the release's tags, whoever published it.
        return cls(repo, revision, own=repo == own_repo and revision is None)
