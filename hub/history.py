"""List the releases of a student with what was measured, where they come from, and what devices make of them.

    python -m hub.history --recipe recipes/demo.yaml --trust trusted-keys.json --endpoint URL [--json]

Every line rests on a signed manifest; what has no valid signature is listed as that. Nothing is written.
"""

import argparse
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from eisv_lumen.errors import LumenError, VerificationError, exit_with_reason
from eisv_lumen.signing import KEY_VARIABLE, SigningKey, TrustedKeys
from eisv_lumen.versions import Version
from hub.command import add_hub_options, notice_board

if TYPE_CHECKING:
    from eisv_lumen.release import Release
    from hub.notices import Board, NoticeBoard


@dataclass(frozen=True)
class Entry:
    """One release.

    Attributes:
        version: Its version.
        commit: Commit of the student that its tag points to.
        created: When it was published, ISO 8601 in UTC; None where its manifest cannot be believed.
        signed_by: The trusted key that signed it.
        revoked: Whether that key has been taken out of the set since.
        gates: What each gate measured, by its number.
        generation: Training generation, `parent` the version it grew from.
        data: Rows and hashes of the dataset; see `data_of`.
        yanked: Why devices leave it; None: they do not.
        rollout: Share of the devices that get it.
        problem: Why its manifest is not believed.
    """

    version: str
    commit: str
    created: str | None = None
    signed_by: str | None = None
    revoked: bool = False
    gates: Mapping[str, Mapping[str, Any]] | None = None
    generation: int | None = None
    parent: str | None = None
    data: Mapping[str, Any] | None = None
    yanked: str | None = None
    rollout: float = 1.0
    problem: str | None = None


def main() -> None:
    """Read tags, manifests and notices; print them, newest first."""
    arguments = _arguments()
    key = None
    if arguments.trust is None:
        key = SigningKey.read(arguments.key)
    board, _ = notice_board(arguments, key)
    entries = history(board)
    if arguments.json:
        print(json.dumps([asdict(entry) for entry in entries], indent=1, ensure_ascii=False))
        return
    print("\n".join(as_text(entries)) if entries else "no release yet")


def history(board: "NoticeBoard") -> list[Entry]:
    """Every release of a student, newest first.

    Raises:
        HubError: The Hub cannot be read.
        VerificationError: The chain of keys is broken, or the notices are not signed.
    """
    stands = board.read()
    versions = sorted((v for tag in stands.tags if (v := Version.of_tag(tag))), reverse=True)
    return [_entry(board, stands, version) for version in versions]


def _entry(board: "NoticeBoard", stands: "Board", version: Version) -> Entry:
    commit = board.reader.resolve(board.repo_id, "model", version.tag)
    marks: dict[str, Any] = {
        "yanked": stands.notices.yanked.get(str(version)),
        "rollout": stands.notices.rollout.get(str(version), 1.0),
    }
    try:
        manifest, name = _manifest(board, stands, commit)
        if manifest.version != str(version):
            raise VerificationError(
                found=f"the manifest of {manifest.version}", expected=str(version), next="ask its publisher"
            )
        data = data_of(board, manifest)
    except LumenError as error:
        return Entry(str(version), commit, problem=error.found, **marks)
    return Entry(
        version=str(version),
        commit=commit,
        created=manifest.created,
        signed_by=name,
        revoked=name not in stands.trusted.key_ids,
        gates=manifest.gates,
        generation=manifest.generation,
        parent=manifest.parent,
        data=data,
        **marks,
    )


def _manifest(board: "NoticeBoard", stands: "Board", commit: str) -> tuple["Release", str]:
    """A release manifest, and the key of any set of the chain that has signed it; the newest set first."""
    from eisv_lumen.layouts import STUDENT
    from eisv_lumen.release import Release
    from eisv_lumen.signing import RELEASE_PURPOSE

    content, signature = (
        board.reader.file(board.repo_id, "model", commit, name)
        for name in (STUDENT.release, STUDENT.signature)
    )
    ever = [entry for keys in stands.key_sets for entry in keys.to_dict()["keys"]]
    name = ""
    for keys in (stands.trusted, TrustedKeys.from_dict({"keys": ever})):
        try:
            name = keys.check(content, signature, RELEASE_PURPOSE)
            break
        except VerificationError:
            if keys is not stands.trusted:
                raise
    return Release.from_bytes(content), name


def data_of(board: "NoticeBoard", manifest: "Release") -> dict[str, Any]:
    """What a release's dataset holds, as its own files say at the commit that the release names.

    Returns:
        `commit`, `windows` (how many), `added` (how many of them since the parent generation) and
        `delta_sha256` (of what was added); None where the dataset does not say.
    """
    record = manifest.repositories["dataset"]
    found: dict[str, Any] = {"commit": record.commit, "windows": None, "added": None, "delta_sha256": None}
    for name in ("manifest.json", "metrics.json"):
        if name not in record.files or record.commit is None:
            continue
        content = json.loads(_verified(board, manifest, name))
        if name == "manifest.json":
            found["delta_sha256"] = content.get("data_delta_sha256")
        else:
            found["windows"] = _windows(content.get("counts"))
            found["added"] = _windows((content.get("growth") or {}).get("added"))
    return found


def _verified(board: "NoticeBoard", manifest: "Release", name: str) -> bytes:
    from hub.contents import LocalFile

    record = manifest.repositories["dataset"]
    content = board.reader.file(record.repo_id, record.repo_type, str(record.commit), name)
    if LocalFile.of(content).sha256 != record.files[name]["sha256"]:
        raise VerificationError(
            found=f"{name} of {record.repo_id} altered",
            expected="the file that the release names",
            next="do not use that dataset; ask its publisher",
        )
    return content


def as_text(entries: list[Entry]) -> list[str]:
    """The list for a person to read."""
    lines = []
    for entry, older in zip(entries, [*entries[1:], None], strict=True):
        marks = [f"YANKED: {entry.yanked}"] if entry.yanked is not None else []
        marks += [f"goes to {entry.rollout:.0%} of the devices"] if entry.rollout < 1 else []
        marks += [f"NOT BELIEVED: {entry.problem}"] if entry.problem else []
        lines.append(
            f"{entry.version}  {(entry.created or '')[:16]}  {entry.commit[:12]}  {'; '.join(marks)}"
        )
        if entry.problem:
            continue
        revoked = " (revoked since)" if entry.revoked else ""
        parent = f", grown from {entry.parent}" if entry.parent else ""
        lines.append(f"    signed by {entry.signed_by}{revoked}; generation {entry.generation}{parent}")
        lines += [f"    gate {number}: {_numbers(gate)}" for number, gate in (entry.gates or {}).items()]
        lines.append(f"    data: {_data(entry, older)}")
    return lines


def _data(entry: Entry, older: Entry | None) -> str:
    data = entry.data or {}
    before = (older.data or {}) if older else {}
    parts = [str(data.get("commit"))[:12]]
    if data.get("windows") is not None:
        parts.append(f"{data['windows']:,} windows")
        if older and before.get("windows") is not None:
            parts.append(f"{data['windows'] - before['windows']:+,} since {older.version}")
    if older and before.get("commit") == data.get("commit"):
        parts.append(f"unchanged since {older.version}")
    if data.get("delta_sha256"):
        added = f" of {data['added']:,} windows" if data.get("added") is not None else ""
        parts.append(f"delta {data['delta_sha256'][:12]}{added}")
    return ", ".join(parts)


def _numbers(gate: Mapping[str, Any]) -> str:
    numbers = [f"{name} {value:.4g}" for name, value in gate.items() if _is_number(value)]
    return ", ".join(["passed" if gate.get("passed") else "not passed", *numbers])


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _windows(counts: Any) -> int | None:
    """All windows of `{split: {provenance: number}}`."""
    if not isinstance(counts, Mapping):
        return None
    numbers = [n for split in counts.values() if isinstance(split, Mapping) for n in split.values()]
    return sum(numbers) if numbers and all(isinstance(n, int) for n in numbers) else None


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m hub.history", description=main.__doc__)
    add_hub_options(parser)
    parser.add_argument("--trust", type=Path, help="key set that devices were given")
    parser.add_argument("--key", type=Path, help=f"signing key, where no key set (default: {KEY_VARIABLE})")
    parser.add_argument("--json", action="store_true", help="as JSON")
    return parser.parse_args()


if __name__ == "__main__":
    exit_with_reason(main)
