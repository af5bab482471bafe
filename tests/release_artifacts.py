"""Small but genuine artifact folders of every kind, for the tests of release and device."""

import json
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import huggingface_hub.constants
import huggingface_hub.file_download
import numpy as np
import onnx
import onnx.parser
import pytest
from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi

from eisv_lumen import artifact, release, vocabulary
from eisv_lumen.device.home import Home
from eisv_lumen.layouts import STUDENT
from eisv_lumen.notices import (
    BRANCH,
    KEYS_PURPOSE,
    NOTICES,
    NOTICES_PURPOSE,
    SIGNATURE_SUFFIX,
    KeySet,
    Notices,
    keys_path,
)
from eisv_lumen.release import ROLES, Compatibility, Release, RepositoryRecord
from eisv_lumen.signing import RELEASE_PURPOSE, SigningKey, TrustedKeys
from eisv_lumen.student import TrajectoryModel
from eisv_lumen.vocabulary import EOS, LUMEN_WORDS, PAD, TOKENS, TRANSLATION
from eisv_lumen.windows import Windows
from hub.local import LocalHub, start

NAMESPACE = "hikewa"
CREATED = "2026-01-01T00:00:00+00:00"
NAMES = {
    "dataset": "unitares-eisv-trajectories",
    "base": "eisv-lumen-base",
    "teacher": "eisv-lumen-teacher",
    "student": "eisv-lumen-student",
    "space": "eisv-lumen-explorer",
}
REPO_IDS = {role: f"{NAMESPACE}/{name}" for role, name in NAMES.items()}
CARD = "---\nlicense: apache-2.0\n{extra}---\n# {title}\n\nMade for a test.\n"
NAMED = ("dimensions", "shapes", "patterns", "tokens", "lumen_words")
GRAPH = """
student (float[B, T, 4] states, float[B, T] times, bool[B, T] mask, float[B, 3, 17] noise)
    => (float[B, 9] shape_probs, float[B, 5] pattern_probs, int64[B, 3] token_ids,
        float[B, 3, 17] token_probs,
        int64[B, 3] lumen_ids, float[B] confidence, float[B, 128] embedding)
{
    present = Cast <to = 1> (mask)
    present3 = Unsqueeze (present, last)
    kept = Mul (states, present3)
    total = ReduceSum <keepdims = 0> (kept, axis)
    count = ReduceSum <keepdims = 1> (present, axis)
    mean = Div (total, count)
    shape_logits = MatMul (mean, to_shape)
    shape_probs = Softmax <axis = 1> (shape_logits)
    pattern_logits = MatMul (mean, to_pattern)
    pattern_probs = Softmax <axis = 1> (pattern_logits)
    token_logits = MatMul (mean, to_token)
    first_probs = Softmax <axis = 1> (token_logits)
    first_probs3 = Unsqueeze (first_probs, axis)
    quiet = Mul (noise, zero)
    token_probs = Add (first_probs3, quiet)
    first = ArgMax <axis = 1, keepdims = 1> (token_logits)
    same = Sub (first, first)
    ended = Add (same, ends)
    token_ids = Concat <axis = 1> (first, ended)
    word = Gather (words, first)
    no_words = Add (same, silent)
    lumen_ids = Concat <axis = 1> (word, no_words)
    confidence = ReduceMax <keepdims = 0> (shape_probs, axis)
    embedding = MatMul (mean, to_embedding)
}
"""


def as_if_imported_with(url: str, patch: pytest.MonkeyPatch) -> None:
    """What HF_ENDPOINT sets when the client is imported: it checks the addresses of commits against it."""
    patch.setattr("huggingface_hub.constants.ENDPOINT", url)
    template = url + "/{repo_id}/resolve/{revision}/{filename}"
    for place in ("file_download", "constants"):
        if hasattr(getattr(huggingface_hub, place), "HUGGINGFACE_CO_URL_TEMPLATE"):
            patch.setattr(f"huggingface_hub.{place}.HUGGINGFACE_CO_URL_TEMPLATE", template)


@contextmanager
def running_hub(root: Path) -> Iterator[LocalHub]:
    """A local Hub that the client takes for its own."""
    with start(root) as running, pytest.MonkeyPatch.context() as patch:
        as_if_imported_with(running.url, patch)
        yield running


def recipe(folder: Path, **release: object) -> Path:
    """A recipe file with a release section."""
    path = folder / "recipe.yaml"
    path.write_text(json.dumps({"release": {"namespace": NAMESPACE, "names": NAMES, **release}}))
    return path


def some_windows(count: int = 12, seed: int = 0) -> Windows:
    """Random walks within the ranges of E, I, S, V."""
    rng = np.random.default_rng(seed)
    ceiling = np.array([1, 1, 1, 0.3])
    steps = np.cumsum(rng.normal(0, 0.02, (count, 20, 4)), axis=1) * ceiling
    states = np.clip(rng.random((count, 1, 4)) * ceiling + steps, 0, ceiling)
    return Windows.of(states, np.tile(np.arange(20) * 2.0, (count, 1)))


def small_student(folder: Path, seed: int = 0) -> Path:
    """A student folder around a graph of a few nodes: real ONNX with a student's interface."""
    with artifact.build(folder, kind="student", configuration={"test": "small"}, seed=seed) as work:
        assert work is not None
        (work.folder / "onnx").mkdir()
        for name in (STUDENT.fp32, STUDENT.int8):
            onnx.save(small_graph(seed), work.folder / name)
        config = {name: list(getattr(vocabulary, name.upper())) for name in NAMED}
        artifact.write_json(work.folder / STUDENT.config, config)
        (work.folder / "modeling_eisv_lumen.py").write_text(
            "raise SystemExit('a device must never run this')\n"
        )
        (work.folder / "model.safetensors").write_bytes(bytes(1024))
        artifact.write_json(work.folder / STUDENT.golden, _golden(work.folder, config, seed))
        work.metrics = {"gate_2": {"passed": True, "coherence": 0.9}, "parity": {"passed": True}}
    (folder / artifact.CARD).write_text(CARD.format(extra="library_name: onnx\n", title="Student"))
    return folder


def small_graph(seed: int = 0) -> onnx.ModelProto:
    """Says one token; shape, pattern, token and embedding are linear in the mean state."""
    rng = np.random.default_rng(seed)
    weights = {
        "to_shape": 40 * rng.normal(size=(4, 9)),
        "to_pattern": rng.normal(size=(4, 5)),
        "to_token": rng.normal(size=(4, 17)) - 1e3 * (np.arange(17) > 14),
        "to_embedding": rng.normal(size=(4, 128)),
    }
    graph = onnx.parser.parse_graph(GRAPH)
    constants = {name: value.astype(np.float32) for name, value in weights.items()}
    constants |= {
        "words": np.array([LUMEN_WORDS.index(TRANSLATION[token][0]) for token in TOKENS] + [-1, -1]),
        "ends": np.array([[EOS, PAD]]),
        "silent": np.array([[-1, -1]]),
        "zero": np.zeros((), np.float32),
        "axis": np.array([1]),
        "last": np.array([2]),
    }
    for name, value in constants.items():
        graph.initializer.append(onnx.numpy_helper.from_array(value, name))
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 18)], ir_version=9)
    onnx.checker.check_model(model)
    return model


def _golden(folder: Path, config: dict, seed: int) -> dict:
    windows = some_windows(4, seed)
    recorded = []
    for i in range(len(windows)):
        entry = {"states": windows.states[i].tolist(), "times": windows.times[i].tolist()}
        for precision, name in (("int8", STUDENT.int8), ("fp32", STUDENT.fp32)):
            model = TrajectoryModel(folder / name, config, version="test", precision=precision)
            outputs = vars(model.infer_batch(Windows.of(windows.states[i], windows.times[i])))
            entry[precision] = {key: value[0].tolist() for key, value in outputs.items()}
        recorded.append(entry)
    return {"windows": recorded}


def release_folders(folder: Path, student: Path) -> dict[str, Path]:
    """One folder per role; the student is a copy, so that a test may change it."""
    folders = {role: folder / role for role in NAMES}
    shutil.copytree(student, folders["student"])
    payloads: dict[str, dict[str, bytes]] = {
        "dataset": {"data/windows/train.parquet": bytes(range(256)) * 64, "weights.json": b"{}\n"},
        "base": {"config.json": b'{"model_type": "qwen3"}\n', "model.safetensors": bytes(4096)},
        "teacher": {
            "adapter_config.json": json.dumps({"base_model_name_or_path": REPO_IDS["base"]}).encode(),
            "adapter_model.safetensors": bytes(2048),
        },
        "space": {"app.py": b"print('hello')\n", "requirements.txt": b"numpy\n"},
    }
    for role, files in payloads.items():
        extra = (
            "sdk: gradio\nsdk_version: 6.17.3\napp_file: app.py\ntitle: Explorer\n" if role == "space" else ""
        )
        with artifact.build(folders[role], kind=role, configuration={"test": role}) as work:
            assert work is not None
            for name, content in files.items():
                (work.folder / name).parent.mkdir(parents=True, exist_ok=True)
                (work.folder / name).write_bytes(content)
            work.metrics = {"gate_1": {"passed": True, "coherence": 0.95}} if role == "teacher" else {}
        (folders[role] / artifact.CARD).write_text(CARD.format(extra=extra, title=role.title()))
    return folders


def rebuild(folder: Path, changes: dict[str, bytes]) -> None:
    """Change files of an artifact folder and write its manifest anew, as another build would."""
    for name, content in changes.items():
        (folder / name).write_bytes(content)
    manifest = json.loads((folder / artifact.MANIFEST).read_text())
    manifest["files"] = artifact.hash_files(folder)
    artifact.write_json(folder / artifact.MANIFEST, manifest)


class Repository:
    """A student's repository to which a test publishes good and hostile releases."""

    def __init__(self, api: HfApi, repo_id: str, key: SigningKey) -> None:
        self.api, self.repo_id, self.key = api, api.create_repo(repo_id).repo_id, key

    def device(self, folder: Path) -> Home:
        """The home of a device that follows it and trusts its key."""
        home = Home(folder)
        home.write("trust.json", TrustedKeys([self.key.public]).to_dict())
        home.write("device.json", {"repo_id": self.repo_id, "hub": self.api.endpoint})
        return home

    def publish(
        self,
        version: str,
        student: Path,
        *,
        key: SigningKey | None = None,
        change: Callable[[Release], Release] = lambda manifest: manifest,
        sent: Callable[[dict[str, bytes]], None] = lambda files: None,
        tag: str | None = None,
    ) -> str:
        """Commit and tag a release; `change` alters what is signed, `sent` what is sent after signing."""
        files = {p.relative_to(student).as_posix(): p.read_bytes() for p in student.rglob("*") if p.is_file()}
        manifest = change(describe(version, self.repo_id, student))
        files["release.json"] = manifest.to_bytes()
        files["release.json.sig"] = artifact.canonical_json(
            (key or self.key).sign(manifest.to_bytes(), RELEASE_PURPOSE)
        )
        sent(files)
        present = set(self.api.list_repo_files(self.repo_id)) - {".gitattributes"}
        gone = [CommitOperationDelete(name) for name in present - set(files)]
        commit = self.api.create_commit(
            self.repo_id,
            [CommitOperationAdd(name, content) for name, content in files.items()] + gone,
            commit_message=version,
        ).oid
        self.api.create_tag(self.repo_id, tag=tag or f"v{version}", revision=commit)
        return commit


class Branch:
    """The notices branch of a student's repository, for good and hostile notices.

    Attributes:
        sequence: Number of the newest notices.
    """

    def __init__(self, repository: Repository) -> None:
        self.repository, self.sequence, self._keys = repository, 0, 0

    def say(
        self,
        *,
        yanked: dict[str, str] | None = None,
        rollout: dict[str, float] | None = None,
        key: SigningKey | None = None,
        sequence: int | None = None,
        repo_id: str | None = None,
    ) -> str:
        """Publish new notices; returns the commit."""
        self.sequence = self.sequence + 1 if sequence is None else sequence
        said = Notices(
            repo_id or self.repository.repo_id, self.sequence, CREATED, yanked or {}, rollout or {}
        )
        return self.put(_signed(NOTICES, said.to_bytes(), key or self.repository.key, NOTICES_PURPOSE))

    def rotate(
        self, keys: list[SigningKey], signer: SigningKey, number: int | None = None, notices: bool = True
    ) -> str:
        """Publish the next key set, and the notices signed anew by its first key; returns the commit."""
        self._keys = self._keys + 1 if number is None else number
        listed = TrustedKeys([key.public for key in keys]).to_dict()["keys"]
        content = KeySet(self.repository.repo_id, self._keys, CREATED, listed).to_bytes()
        files = _signed(keys_path(self._keys), content, signer, KEYS_PURPOSE)
        if notices:
            self.sequence += 1
            said = Notices(self.repository.repo_id, self.sequence, CREATED).to_bytes()
            files |= _signed(NOTICES, said, keys[0], NOTICES_PURPOSE)
        return self.put(files)

    def put(self, files: dict[str, bytes]) -> str:
        """Commit files as they are; returns the commit."""
        repository = self.repository
        repository.api.create_branch(repository.repo_id, branch=BRANCH, exist_ok=True)
        operations = [CommitOperationAdd(name, content) for name, content in files.items()]
        return repository.api.create_commit(
            repository.repo_id, operations, commit_message="notices", revision=BRANCH
        ).oid


def _signed(name: str, content: bytes, key: SigningKey, purpose: str) -> dict[str, bytes]:
    return {name: content, name + SIGNATURE_SUFFIX: artifact.canonical_json(key.sign(content, purpose))}


def describe(version: str, repo_id: str, student: Path) -> Release:
    records = {role: RepositoryRecord(f"someone/{role}", kind, "0" * 40, {}) for role, kind in ROLES.items()}
    records["student"] = RepositoryRecord(repo_id, "model", None, release.record_files(student))
    return Release(
        version=version,
        created="2026-01-01T00:00:00+00:00",
        repositories=records,
        compatibility=Compatibility(1, release.vocabulary_sha256(), 18, "0.1.0"),
    )
