"""Artifact folders: what every stage writes, and what the next stage, the Hub and the device verify.

An artifact is a folder with a `manifest.json`, its payload, a `metrics.json`, and later a `README.md` card.
It is built in a work folder beside it and appears under its final name only when it is complete:

    with artifact.build(out, kind="dataset", configuration=config, inputs=[recording], seed=0) as work:
        if work is not None:            # None: the folder stands already, from the same inputs
            ...write into work.folder; long stages keep checkpoints in work.scratch...
            work.metrics = {...}

The work folder's name carries the build's identity, so a killed stage finds its own checkpoints and no
others.
"""

import hashlib
import json
import os
import shutil
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import IO, Any, Self

from eisv_lumen.errors import PLACE_UNUSABLE, ArtifactError, ResourceError, SourceError

SCHEMA_VERSION = 1
MANIFEST, METRICS, CARD = "manifest.json", "metrics.json", "README.md"
FIGURES = "figures/"
"""Pictures of the card; like the card they are drawn anew from what was measured, and not hashed."""
_RECORDED_LIBRARIES = (
    "numpy",
    "pyarrow",
    "torch",
    "transformers",
    "peft",
    "datasets",
    "onnx",
    "onnxruntime",
    "optimum",
    "huggingface_hub",
    "scikit-learn",
    "skl2onnx",
)
_BYTES_NEEDED = 64 * 1024 * 1024
_ASIDE = "replaced"


@dataclass(frozen=True)
class Manifest:
    """What `manifest.json` says of a folder.

    Attributes:
        kind: `recording`, `dataset`, `base`, `teacher`, `student` or `space`.
        files: Per path inside the folder: `{"sha256": hex, "size": bytes}`; all but manifest, card, figures.
        inputs: Per input name: sha256 of its manifest, or of the file itself.
        configuration: The settings of the stage, as plain JSON.
        generation: Number of the training generation; `parent` is the version it grew from.
        data_delta_sha256: Hash of the data added since the parent generation.
        facts: What a reader should know without opening another file, as plain JSON.
    """

    kind: str
    files: dict[str, dict[str, Any]]
    inputs: dict[str, str] = field(default_factory=dict)
    configuration: dict[str, Any] = field(default_factory=dict)
    seed: int | None = None
    libraries: dict[str, str] = field(default_factory=dict)
    generation: int = 0
    parent: str | None = None
    data_delta_sha256: str | None = None
    facts: dict[str, Any] = field(default_factory=dict)
    schema_version: int = SCHEMA_VERSION

    @property
    def identity(self) -> str:
        """sha256 over what determines the content: kind, schema, inputs, configuration, seed, generation."""
        return identity_of(
            self.kind,
            self.configuration,
            self.inputs,
            self.seed,
            self.generation,
            self.parent,
            self.schema_version,
        )

    @classmethod
    def read(cls, folder: Path, *, kind: str | None = None) -> Self:
        """The manifest of an artifact folder.

        Raises:
            ArtifactError: No manifest, an unreadable one, or one of another kind.
        """
        path = Path(folder) / MANIFEST
        try:
            manifest = cls(**json.loads(path.read_text("utf-8")))
            if not isinstance(manifest.files, dict):
                raise TypeError("files is no object")
        except (OSError, ValueError, TypeError) as error:
            raise ArtifactError(
                found=f"{path}: {type(error).__name__}",
                expected="a complete artifact folder with a manifest.json",
                next="build it again with the stage that makes it (make demo runs them all)",
            ) from error
        if kind is not None and manifest.kind != kind:
            raise ArtifactError(
                found=f"{folder} is a {manifest.kind}",
                expected=f"a {kind}",
                next=f"pass the {kind} folder instead",
            )
        return manifest


@dataclass
class Work:
    """A build in progress: write the payload into `folder`, keep resumable state in `scratch`.

    `data_delta_sha256` and `facts` go into the manifest.
    """

    folder: Path
    scratch: Path
    metrics: dict[str, Any] | None = None
    data_delta_sha256: str | None = None
    facts: dict[str, Any] = field(default_factory=dict)


def identity_of(
    kind: str,
    configuration: Mapping[str, Any],
    inputs: Mapping[str, str],
    seed: int | None,
    generation: int = 0,
    parent: str | None = None,
    schema_version: int = SCHEMA_VERSION,
) -> str:
    """sha256 hex of everything that determines an artifact's content."""
    return hashlib.sha256(
        canonical_json([kind, schema_version, dict(configuration), dict(inputs), seed, generation, parent])
    ).hexdigest()


def canonical_json(value: Any) -> bytes:
    """One byte string per JSON value: sorted keys, no spaces, UTF-8, no NaN."""
    return json.dumps(
        value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False
    ).encode()


def write_json(path: Path, value: Any) -> None:
    """Write JSON for people: indented, keys in the order given, newline at the end; atomically."""
    partial = path.with_name(f".{path.name}.partial")
    partial.write_text(json.dumps(value, indent=1, ensure_ascii=False, allow_nan=False) + "\n", "utf-8")
    partial.replace(path)


def sha256_file(path: Path) -> str:
    """sha256 hex of a file's bytes."""
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def hash_files(folder: Path) -> dict[str, dict[str, Any]]:
    """`{path: {sha256, size}}` of every file in a folder but its manifest, card and figures, by path."""
    paths = sorted(path for path in Path(folder).rglob("*") if path.is_file())
    return {
        name: {"sha256": sha256_file(path), "size": path.stat().st_size}
        for path in paths
        if (name := path.relative_to(folder).as_posix()) not in (MANIFEST, CARD)
        and not name.startswith(FIGURES)
    }


def input_hash(path: Path) -> str:
    """What a later stage records of an input: the hash of a folder's manifest, or of a plain file.

    Raises:
        ArtifactError: A folder without a readable manifest.
        SourceError: A file that is missing or unreadable.
    """
    path = Path(path)
    if path.is_dir():
        Manifest.read(path)
        path = path / MANIFEST
    try:
        return sha256_file(path)
    except OSError as error:
        raise SourceError(
            found=f"{path}: {error.strerror or type(error).__name__}",
            expected="a readable file or artifact folder",
            next="check the path",
        ) from error


def read_metrics(folder: Path) -> dict[str, Any]:
    """The `metrics.json` of an artifact folder.

    Raises:
        ArtifactError: When it is missing or unreadable.
    """
    return read_json(Path(folder) / METRICS)


def read_json(path: Path) -> Any:
    """A JSON file of an artifact folder.

    Raises:
        ArtifactError: When it is missing or unreadable.
    """
    try:
        return json.loads(path.read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise ArtifactError(
            found=f"{path.parent} has no readable {path.name}",
            expected="a complete artifact folder",
            next="build it again",
        ) from error


def verify(folder: Path, *, kind: str | None = None) -> Manifest:
    """Check every file of an artifact folder against its manifest.

    Raises:
        ArtifactError: A file is missing, has other content, or is not in the manifest.
    """
    manifest = Manifest.read(folder, kind=kind)
    try:
        present = hash_files(folder)
    except OSError as error:
        raise ArtifactError(
            found=f"{error.filename or folder}: {error.strerror or type(error).__name__}",
            expected="readable files",
            next="mend the permissions, or build or download the folder again",
        ) from error
    for name in sorted(manifest.files.keys() | present.keys()):
        expected, found = manifest.files.get(name), present.get(name)
        if expected != found:
            state = "missing" if found is None else "not in the manifest" if expected is None else "altered"
            raise ArtifactError(
                found=f"{Path(folder) / name} is {state}",
                expected="the files that the manifest names, unchanged",
                next="build or download the folder again",
            )
    return manifest


@contextmanager
def build(
    out: Path,
    *,
    kind: str,
    configuration: Mapping[str, Any],
    inputs: Mapping[str, Path] | None = None,
    seed: int | None = None,
    generation: int = 0,
    parent: str | None = None,
    metrics_required: bool = True,
) -> Iterator[Work | None]:
    """Build an artifact folder completely, or leave what stood before untouched.

    Args:
        out: The folder's final name.
        kind: See `Manifest`.
        configuration: Plain JSON settings; with `inputs` and `seed` they identify the build.
        inputs: Artifact folders or files that go in, by name.
        seed: The seed of everything random.
        generation: See `Manifest`.
        parent: The version this generation grew from.
        metrics_required: Whether leaving `Work.metrics` unset is a mistake.

    Yields:
        The work to do, or None where `out` already holds this very build.

    Raises:
        ArtifactError: `out` holds something else than an artifact of this kind, which is left alone.
        ResourceError: The place is not writable or the disk is full.
    """
    out = Path(out).absolute()
    hashes = {name: input_hash(path) for name, path in (inputs or {}).items()}
    identity = identity_of(kind, configuration, hashes, seed, generation, parent)
    if is_current(out, identity) and not _left_behind(out):
        yield None
        return
    _refuse_other_content(out, kind)
    lock = _lock(out)
    try:
        scratch = _scratch_folder(out, identity)
        work = Work(scratch / "folder", scratch / "scratch")
        if is_current(work.folder, identity):  # killed when all was written
            _publish(work.folder, out)
        if is_current(out, identity):  # or finished by the process that was waited for
            remove_stale_work(out)
            yield None
            return
        shutil.rmtree(work.folder, ignore_errors=True)
        work.folder.mkdir(parents=True)
        work.scratch.mkdir(exist_ok=True)
        yield work
        if metrics_required and work.metrics is None:
            raise AssertionError(f"the {kind} stage set no metrics")
        if work.metrics is not None:
            write_json(work.folder / METRICS, work.metrics)
        manifest = Manifest(
            kind=kind,
            files=hash_files(work.folder),
            inputs=hashes,
            configuration=dict(configuration),
            seed=seed,
            libraries=library_versions(),
            generation=generation,
            parent=parent,
            data_delta_sha256=work.data_delta_sha256,
            facts=work.facts,
        )
        write_json(work.folder / MANIFEST, asdict(manifest))
        _publish(work.folder, out)
        remove_stale_work(out)
    except OSError as error:
        if error.errno not in PLACE_UNUSABLE:
            raise
        raise _resource_error(out, error) from error
    finally:
        Path(lock.name).unlink(missing_ok=True)
        lock.close()


def is_current(out: Path, identity: str) -> bool:
    """Does `out` hold a complete, undamaged build of this identity?"""
    try:
        return verify(out).identity == identity
    except ArtifactError:
        return False


def library_versions() -> dict[str, str]:
    """Versions of the libraries that shape an artifact's content, where installed."""
    from importlib.metadata import PackageNotFoundError, version  # 4 MB, which a device has better use for

    found = {}
    for name in _RECORDED_LIBRARIES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def fsync_folder(folder: Path) -> None:
    """Make renames inside a folder survive a power cut."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def remove_stale_work(out: Path, keep: str = "") -> None:
    """Delete the work folders that killed builds of `out` left, but the one named `keep`.

    A build killed between its two renames left the folder it was to replace inside: that goes back first.
    """
    for path in Path(out).parent.glob(f".{Path(out).name}.work-*"):
        if not out.exists() and (path / _ASIDE).exists():
            (path / _ASIDE).replace(out)
        if path.name != keep:
            shutil.rmtree(path, ignore_errors=True)


def _left_behind(out: Path) -> bool:
    """Is there a build of `out` under way, or what one left that was killed when it had all but ended?"""
    return _lock_file(out).exists() or any(out.parent.glob(f".{out.name}.work-*"))


def _lock_file(out: Path) -> Path:
    return out.with_name(f".{out.name}.lock")


def _refuse_other_content(out: Path, kind: str) -> None:
    """Replacing deletes what stood there, so that must be an artifact of the same kind, or nothing."""
    if not out.exists() or (out.is_dir() and not any(out.iterdir())):
        return
    found = "is no artifact folder"
    if (out / MANIFEST).is_file():
        try:
            found = f"is a {Manifest.read(out).kind}"
        except ArtifactError:  # a damaged artifact may be built again
            return
    if found != f"is a {kind}":
        raise ArtifactError(
            found=f"{out} {found}",
            expected=f"a {kind} folder, or nothing",
            next="choose another folder (--out), or move this one away",
        )


def _scratch_folder(out: Path, identity: str) -> Path:
    name = f".{out.name}.work-{identity[:16]}"
    try:
        remove_stale_work(out, keep=name)
        free = shutil.disk_usage(out.parent).free
        if free < _BYTES_NEEDED:
            raise ResourceError(
                found=f"{free >> 20} MiB free at {out.parent}",
                expected=f"at least {_BYTES_NEEDED >> 20} MiB",
                next="free some space, then run the same command again",
            )
        folder = out.parent / name
        folder.mkdir(exist_ok=True)
    except ResourceError:
        raise
    except OSError as error:
        raise _resource_error(out, error) from error
    return folder


def _lock(out: Path) -> IO[str]:
    """Keep two processes from building one folder; a stage whose parent was killed may still be at it."""
    import fcntl  # only builders need it, and Windows has none

    path = _lock_file(out)
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        while True:
            file = path.open("w")
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                print(f"another process is building {out.name}: waiting for it", file=sys.stderr, flush=True)
                fcntl.flock(file, fcntl.LOCK_EX)
            # Who held it before has deleted it on leaving: then this is no longer the file others lock.
            if path.exists() and os.path.samestat(path.stat(), os.fstat(file.fileno())):
                return file
            file.close()
    except OSError as error:
        raise _resource_error(out, error) from error


def _publish(folder: Path, out: Path) -> None:
    """Give the finished folder its final name; an older one steps aside first and is deleted last."""
    for path in [*folder.rglob("*"), folder]:
        descriptor = os.open(path, os.O_RDONLY)
        os.fsync(descriptor)
        os.close(descriptor)
    aside = folder.with_name(_ASIDE)
    shutil.rmtree(aside, ignore_errors=True)
    if out.exists():
        out.replace(aside)
    folder.replace(out)
    fsync_folder(out.parent)


def _resource_error(out: Path, error: OSError) -> ResourceError:
    return ResourceError(
        found=f"{error.filename or out}: {error.strerror or type(error).__name__}",
        expected="a writable folder with free space",
        next="choose another folder (--out) or mend its permissions, then run the same command again",
    )
