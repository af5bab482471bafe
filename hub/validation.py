"""What a folder must be before it is published: complete, gated, carded, and free of secrets and pickles.

Figures belong to the card, so no manifest names them: they are checked for being pictures and nothing else.
"""

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from eisv_lumen import artifact
from eisv_lumen.errors import ArtifactError, GateError
from eisv_lumen.release import OPTIONAL_ROLES, ROLES, safe_path
from eisv_lumen.signing import SigningKey
from hub.contents import LocalFile, folder_files
from hub.parallel import Workers
from hub.secrets import Secrets, unfit

MAX_FILES = 10_000
_PICKLES = {".bin", ".pt", ".pth", ".pkl", ".pickle", ".ckpt", ".joblib", ".npy", ".npz", ".msgpack", ".h5"}
_WITH_CODE = {"student", "space"}
_CODE = {".py", ".sh", ".so", ".pyc", ".whl"}
_FRONT_MATTER = re.compile(r"\A---\r?\n(.*?)\r?\n---\r?\n", re.DOTALL)
_PNG, _PNG_END = b"\x89PNG\r\n\x1a\n", b"\x00\x00\x00\x00IEND\xaeB`\x82"
_MAX_FIGURES, _MAX_FIGURE_BYTES = 20, 500_000
_REPOSITORY = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*", re.ASCII)


def validate(
    folders: Mapping[str, Path],
    base_repo_id: str | None,
    key: SigningKey,
    token: str | None,
    *more_keys: SigningKey,
    files: Mapping[str, Mapping[str, LocalFile]] | None = None,
    workers: Workers | None = None,
) -> dict[str, artifact.Manifest]:
    """Check every folder of a release; nothing is sent before all of them pass.

    Args:
        folders: Artifact folder per role; without the base where the adapter names somebody else's.
        base_repo_id: Repository under which the release publishes a base; None: it has no name for one.
        key: The signing key, which must not lie in any of them.
        token: The Hub token, likewise.
        more_keys: Further signing keys, likewise.
        files: What each folder holds, where that has been read: the very bytes that are to be sent.
        workers: Read several folders at a time.

    Returns:
        The manifest of each.

    Raises:
        ArtifactError: A folder is incomplete, damaged, of the wrong kind, or has no valid card.
        GateError: A gate was not passed, or parity was not measured.
        VerificationError: A secret, a pickle, code where none belongs, or a figure that is none.
    """
    secrets = Secrets((key, *more_keys), token)
    roles = [role for role in ROLES if role in folders or role not in OPTIONAL_ROLES]

    def check(role: str) -> artifact.Manifest:
        folder = folders[role]
        found = folder_files(folder) if files is None else files[role]
        manifest = _check_complete(folder, role, found)
        _check_card(folder)
        _check_content(folder, role, found, secrets)
        _check_figures(folder)
        return manifest

    manifests = dict(zip(roles, (workers or Workers(1)).each(check, roles), strict=True))
    _check_gates(folders)
    if "base" in folders:
        _check_own_base(folders["teacher"], base_repo_id)
    else:
        _check_public_base(folders["teacher"], base_repo_id)
    return manifests


def front_matter(card: Path) -> dict[str, Any]:
    """The YAML front matter of a card.

    Raises:
        ArtifactError: There is none, or it is no mapping, or a value in it is empty.
    """
    try:
        match = _FRONT_MATTER.match(card.read_text("utf-8"))
        values = yaml.safe_load(match.group(1)) if match else None
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise _no_card(card, type(error).__name__) from error
    if not isinstance(values, dict) or not values:
        raise _no_card(card, "no front matter")
    empty = [name for name, value in values.items() if value is None or value == []]
    if empty:
        raise _no_card(card, f"nothing under {', '.join(map(str, empty))}")
    return values


def _check_complete(folder: Path, role: str, files: Mapping[str, LocalFile]) -> artifact.Manifest:
    """The files are those of the manifest; where they are not, the folder is read anew to say which."""
    manifest = artifact.Manifest.read(folder, kind=role)
    named = {
        name: file.record
        for name, file in files.items()
        if name not in (artifact.MANIFEST, artifact.CARD) and not name.startswith(artifact.FIGURES)
    }
    if named != manifest.files:
        artifact.verify(folder, kind=role)
        raise unfit(folder, "files that change while they are read", "a folder that nothing writes to")
    return manifest


def _check_card(folder: Path) -> None:
    card = folder / artifact.CARD
    values = front_matter(card)
    if not isinstance(values.get("license"), str):
        raise _no_card(card, "no license")
    if not card.read_text("utf-8").split("---", 2)[2].strip():
        raise _no_card(card, "no text under the front matter")


def _check_content(folder: Path, role: str, files: Mapping[str, LocalFile], secrets: Secrets) -> None:
    paths = list(folder.rglob("*"))
    if len(paths) > MAX_FILES:
        raise unfit(folder, f"{len(paths)} files", f"at most {MAX_FILES}")
    for path in paths:
        if path.is_symlink():
            raise unfit(path, "a link", "files only")
    for name, file in files.items():
        if not safe_path(name):
            raise unfit(folder / name, "a hidden or odd file name", "plain names")
        _check_kind(folder / name, role, file.head(4))
        with file.open() as stream:
            secrets.check_stream(folder / name, stream)


def _check_figures(folder: Path) -> None:
    """Whatever lies under `figures/` is a picture: the manifest does not vouch for it."""
    paths = [path for path in sorted((folder / artifact.FIGURES).rglob("*")) if path.is_file()]
    if len(paths) > _MAX_FIGURES:
        raise unfit(folder / artifact.FIGURES, f"{len(paths)} figures", f"at most {_MAX_FIGURES}")
    for path in paths:
        size = path.stat().st_size
        if size > _MAX_FIGURE_BYTES:
            raise unfit(path, f"a figure of {size:,} bytes", f"at most {_MAX_FIGURE_BYTES:,}")
        content = path.read_bytes()
        if (
            path.parent != folder / artifact.FIGURES
            or path.suffix != ".png"
            or not content.startswith(_PNG)
            or not content.endswith(_PNG_END)
        ):
            raise unfit(path, "a file that is no PNG figure", "PNG files alone, directly in figures/")


def _check_kind(path: Path, role: str, head: bytes) -> None:
    suffix = path.suffix.lower()
    if suffix in _PICKLES or (head[:1] == b"\x80" and head[1:2] in b"\x02\x03\x04\x05" and len(head) > 1):
        raise unfit(path, "a format that can run code when it is loaded", "safetensors, ONNX, parquet, JSON")
    if suffix in _CODE and role not in _WITH_CODE:
        raise unfit(path, f"code in the {role}", "data only")
    if suffix in _CODE - {".py"} and role != "space":
        raise unfit(path, f"a {suffix} file in the {role}", "data, and readable Python")


def _check_gates(folders: Mapping[str, Path]) -> None:
    for role, measurement in (("teacher", "gate_1"), ("student", "gate_2"), ("student", "parity")):
        measured = artifact.read_metrics(folders[role]).get(measurement)
        if not isinstance(measured, dict):
            raise GateError(
                found=f"no {measurement} in the metrics of {folders[role]}",
                expected=f"a {role} that was measured",
                next=f"train the {role} again",
            )
        if measured.get("passed") is not True:
            raise GateError(
                found=f"{measurement} of {folders[role]} was not passed: {_short(measured)}",
                expected=f"a {role} that passed {measurement}",
                next=f"train the {role} longer or on more data; nothing was published",
            )


def _named_base(teacher: Path) -> object:
    path = teacher / "adapter_config.json"
    try:
        return json.loads(path.read_text("utf-8"))["base_model_name_or_path"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ArtifactError(
            found=f"{path}: {type(error).__name__}",
            expected="the configuration of a peft adapter",
            next="train the teacher again",
        ) from error


def _check_own_base(teacher: Path, base_repo_id: str | None) -> None:
    named = _named_base(teacher)
    if named != base_repo_id:
        raise ArtifactError(
            found=f"an adapter whose base is {named!r}",
            expected=f"{base_repo_id}, where its base is published",
            next="train the teacher with the base's repository name as in the recipe",
        )


def _check_public_base(teacher: Path, base_repo_id: str | None) -> None:
    named = _named_base(teacher)
    if named == base_repo_id:
        raise ArtifactError(
            found=f"no base folder, and an adapter whose base is {named!r}, this release's own",
            expected="that base beside it",
            next="pass --base DIR; nothing was published",
        )
    if not isinstance(named, str) or not _REPOSITORY.fullmatch(named):
        raise ArtifactError(
            found=f"no base folder, and an adapter whose base is {named!r}",
            expected="namespace/name of a base model on the Hub",
            next="train the teacher with its base's repository name, or pass --base DIR",
        )


def _short(measured: Mapping[str, Any]) -> str:
    numbers = {name: value for name, value in measured.items() if isinstance(value, int | float)}
    return (
        ", ".join(f"{name} {value:.4g}" for name, value in numbers.items() if name != "passed")
        or "no numbers"
    )


def _no_card(card: Path, reason: str) -> ArtifactError:
    return ArtifactError(
        found=f"{card}: {reason}",
        expected="a card with valid front matter",
        next="write the cards: python -m model_cards.render",
    )
