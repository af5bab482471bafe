"""What a folder must be before it is published: complete, gated, carded, and free of secrets and pickles.

Figures belong to the card, so no manifest names them: they are checked for being pictures and nothing else.
"""

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from eisv_lumen import artifact
from eisv_lumen.errors import ArtifactError, GateError, VerificationError
from eisv_lumen.release import OPTIONAL_ROLES, ROLES, safe_path
from eisv_lumen.signing import SigningKey
from hub.parallel import Workers

MAX_FILES = 10_000
_PICKLES = {".bin", ".pt", ".pth", ".pkl", ".pickle", ".ckpt", ".joblib", ".npy", ".npz", ".msgpack", ".h5"}
_WITH_CODE = {"student", "space"}
_CODE = {".py", ".sh", ".so", ".pyc", ".whl"}
_SECRETS = re.compile(
    rb"(?<![A-Za-z0-9])(?:hf_[A-Za-z0-9]{30,}|AKIA[0-9A-Z]{16}(?![A-Za-z0-9])|gh[pousr]_[A-Za-z0-9]{36,}"
    rb"|sk-[A-Za-z0-9_-]{32,}|xox[abpr]-[A-Za-z0-9-]{20,})|-----BEGIN [A-Z ]*PRIVATE KEY-----"
)
_FRONT_MATTER = re.compile(r"\A---\r?\n(.*?)\r?\n---\r?\n", re.DOTALL)
_RUN = bytes([1]) * 20
_STEP = 4
_IN_RUNS = bytes(int(chr(i).isascii() and (chr(i).isalnum() or chr(i) in "_-/+=\\ ")) for i in range(256))
_BLOCK, _OVERLAP = 1 << 20, 512
_PNG, _PNG_END = b"\x89PNG\r\n\x1a\n", b"\x00\x00\x00\x00IEND\xaeB`\x82"
_MAX_FIGURES, _MAX_FIGURE_BYTES = 20, 500_000
_REPOSITORY = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*", re.ASCII)


class Secrets:
    """What must never be published: this release's own keys and token, and whatever looks like any.

    Args:
        keys: The signing keys.
        token: The Hub token.
    """

    def __init__(self, keys: Sequence[SigningKey], token: str | None) -> None:
        self._keys, self._token = keys, token.encode() if token else None
        self._token_is_run = token is not None and _has_run(token.encode())

    def __repr__(self) -> str:
        """Names nothing of them."""
        return "Secrets()"

    def check(self, place: str | Path, content: bytes) -> None:
        """Refuse bytes to be published that hold a secret.

        Raises:
            VerificationError: They do; the message names the place alone.
        """
        # Every kind is a run of such characters; weights hold none, and the slow search is not for them.
        has_run = _has_run(content)
        if self._own(content, has_run) or (has_run and self._looks_like_one(content)):
            raise _unfit(place, "something that looks like a token or a private key", "no secrets")

    def _own(self, content: bytes, has_run: bool) -> bool:
        if self._token is not None and (has_run or not self._token_is_run) and self._token in content:
            return True
        return any(key.appears_in(content) for key in self._keys)

    def _looks_like_one(self, content: bytes) -> bool:
        plain = content.replace(b"\\/", b"/")  # as some writers of JSON have it
        return _SECRETS.search(plain) is not None or self._own(plain, True)

    def check_file(self, path: Path) -> None:
        """Refuse a file that holds a secret; read in blocks.

        Raises:
            VerificationError: It does.
        """
        overlap = b""
        with path.open("rb") as file:
            while block := file.read(_BLOCK):
                self.check(path, overlap + block)
                overlap = block[-_OVERLAP:]


def validate(
    folders: Mapping[str, Path],
    base_repo_id: str | None,
    key: SigningKey,
    token: str | None,
    *more_keys: SigningKey,
    workers: Workers | None = None,
) -> dict[str, artifact.Manifest]:
    """Check every folder of a release; nothing is sent before all of them pass.

    Args:
        folders: Artifact folder per role; without the base where the adapter names somebody else's.
        base_repo_id: Repository under which the release publishes a base; None: it has no name for one.
        key: The signing key, which must not lie in any of them.
        token: The Hub token, likewise.
        more_keys: Further signing keys, likewise.
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
        manifest = artifact.verify(folders[role], kind=role)
        _check_card(folders[role])
        _check_content(folders[role], role, secrets)
        _check_figures(folders[role])
        return manifest

    manifests = dict(zip(roles, (workers or Workers(1)).each(check, roles), strict=True))
    _check_gates(folders)
    if "base" in folders:
        _check_own_base(folders["teacher"], base_repo_id)
    else:
        _check_public_base(folders["teacher"], base_repo_id)
    return manifests


def _has_run(content: bytes) -> bool:
    """Whether 20 characters of `_IN_RUNS` follow each other.

    Only every fourth byte is looked at, since a run holds five of them; where five follow each other, also
    what lies between them. This is most of what reading large files costs.
    """
    if len(content) < len(_RUN):
        return False
    one = np.frombuffer(content[::_STEP].translate(_IN_RUNS), bool)
    places = np.flatnonzero(one[:-4] & one[1:-3] & one[2:-2] & one[3:-1] & one[4:]) * _STEP
    every, in_runs = np.frombuffer(content, np.uint8), np.frombuffer(_IN_RUNS, bool)
    for offset in range(1, 4 * _STEP):
        places = places[in_runs[every[places + offset]]]
    return len(places) > 0 and _RUN in content.translate(_IN_RUNS)


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


def _check_card(folder: Path) -> None:
    card = folder / artifact.CARD
    values = front_matter(card)
    if not isinstance(values.get("license"), str):
        raise _no_card(card, "no license")
    if not card.read_text("utf-8").split("---", 2)[2].strip():
        raise _no_card(card, "no text under the front matter")


def _check_content(folder: Path, role: str, secrets: Secrets) -> None:
    paths = sorted(folder.rglob("*"))
    if len(paths) > MAX_FILES:
        raise _unfit(folder, f"{len(paths)} files", f"at most {MAX_FILES}")
    for path in paths:
        name = path.relative_to(folder).as_posix()
        if path.is_symlink():
            raise _unfit(path, "a link", "files only")
        if not path.is_file():
            continue
        if not safe_path(name):
            raise _unfit(path, "a hidden or odd file name", "plain names")
        _check_kind(path, role)
        secrets.check_file(path)


def _check_figures(folder: Path) -> None:
    """Whatever lies under `figures/` is a picture: the manifest does not vouch for it."""
    paths = [path for path in sorted((folder / artifact.FIGURES).rglob("*")) if path.is_file()]
    if len(paths) > _MAX_FIGURES:
        raise _unfit(folder / artifact.FIGURES, f"{len(paths)} figures", f"at most {_MAX_FIGURES}")
    for path in paths:
        size = path.stat().st_size
        if size > _MAX_FIGURE_BYTES:
            raise _unfit(path, f"a figure of {size:,} bytes", f"at most {_MAX_FIGURE_BYTES:,}")
        content = path.read_bytes()
        if (
            path.parent != folder / artifact.FIGURES
            or path.suffix != ".png"
            or not content.startswith(_PNG)
            or not content.endswith(_PNG_END)
        ):
            raise _unfit(path, "a file that is no PNG figure", "PNG files alone, directly in figures/")


def _check_kind(path: Path, role: str) -> None:
    suffix = path.suffix.lower()
    with path.open("rb") as file:
        head = file.read(4)
    if suffix in _PICKLES or (head[:1] == b"\x80" and head[1:2] in b"\x02\x03\x04\x05" and len(head) > 1):
        raise _unfit(path, "a format that can run code when it is loaded", "safetensors, ONNX, parquet, JSON")
    if suffix in _CODE and role not in _WITH_CODE:
        raise _unfit(path, f"code in the {role}", "data only")
    if suffix in _CODE - {".py"} and role != "space":
        raise _unfit(path, f"a {suffix} file in the {role}", "data, and readable Python")


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


def _unfit(path: str | Path, found: str, expected: str) -> VerificationError:
    return VerificationError(
        found=f"{path}: {found}",
        expected=expected,
        next="build the folder again without it; nothing was published",
    )
