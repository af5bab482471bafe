"""The student on a device: one ONNX graph that hears a raw window and says an expression.

    model = TrajectoryModel.from_pretrained("hikewa/eisv-lumen-student", revision="v0.1.0")
    heard = model.infer(Windows.of(states, times))
    print(heard.expression, heard.shape, heard.confidence)

Needs numpy, onnxruntime and huggingface_hub only; no remote code is run and nothing is unpickled.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal, Self

import numpy as np

from eisv_lumen import artifact, vocabulary
from eisv_lumen.errors import ArtifactError, InputError, VerificationError, WindowError
from eisv_lumen.expression import Expression
from eisv_lumen.layouts import STUDENT
from eisv_lumen.versions import Version
from eisv_lumen.vocabulary import LUMEN_WORDS, MAX_TOKENS, N_CLASSES, SHAPES, STATE_MAX
from eisv_lumen.windows import MIN_STATES, WINDOW_LENGTH, Windows

Precision = Literal["int8", "fp32"]

BATCH = 64
"""Windows per run of the graph in `infer_batch`."""

GOLDEN_TOLERANCE = 0.02
"""Largest difference of a probability from the recorded one: INT8 on another processor stays within it."""

_OUTPUTS = (
    "shape_probs",
    "pattern_probs",
    "token_ids",
    "token_probs",
    "lumen_ids",
    "confidence",
    "embedding",
)
_CHECKED = ("shape_probs", "pattern_probs", "confidence")


@dataclass(frozen=True)
class Heard:
    """What the student makes of one window.

    Attributes:
        expression: What it says.
        shape: The likeliest shape.
        shape_probs: `[9]` calibrated probability of each shape.
        pattern_probs: `[5]` probability of each pattern, before the first token is chosen.
        confidence: Expected coherence of the expression under `shape_probs`, in [0, 1].
        lumen_words: The expression in Lumen's own words, as the Lumen head says them.
        embedding: `[128]` the window as a vector.
        version: Version of the model that heard it.
    """

    expression: Expression
    shape: str
    shape_probs: np.ndarray
    pattern_probs: np.ndarray
    confidence: float
    lumen_words: tuple[str, ...]
    embedding: np.ndarray
    version: str


@dataclass(frozen=True)
class BatchResult:
    """What the student makes of N windows.

    Attributes:
        shape_probs: `[N, 9]` calibrated probability of each shape.
        pattern_probs: `[N, 5]` probability of each pattern.
        token_ids: `[N, 3]` ids of the expressions, as `eisv_lumen.expression` defines them.
        token_probs: `[N, 3, 17]` the distribution each id was chosen from.
        lumen_ids: `[N, 3]` ids into `LUMEN_WORDS`, -1 where there is no word.
        confidence: `[N]` expected coherence.
        embedding: `[N, 128]` the windows as vectors.
    """

    shape_probs: np.ndarray
    pattern_probs: np.ndarray
    token_ids: np.ndarray
    token_probs: np.ndarray
    lumen_ids: np.ndarray
    confidence: np.ndarray
    embedding: np.ndarray

    def __len__(self) -> int:
        """Number of windows, N."""
        return len(self.token_ids)

    @property
    def shapes(self) -> np.ndarray:
        """`[N]` id of the likeliest shape."""
        return self.shape_probs.argmax(axis=1)


class TrajectoryModel:
    """A loaded student.

    Attributes:
        version: The release it belongs to where it was asked for by tag or says so itself; else the start of
            the commit or of the build's identity.
        commit: The commit it was downloaded at, None for a folder.
        precision: `int8` or `fp32`.
        config: What its `config.json` says.
    """

    def __init__(
        self,
        graph: Path,
        config: Mapping[str, Any],
        *,
        version: str,
        precision: str,
        commit: str | None = None,
    ) -> None:
        """Open a graph; most callers want `from_pretrained`.

        Raises:
            ArtifactError: The graph cannot be loaded, or was made for another vocabulary.
        """
        self.version, self.precision, self.commit = version, precision, commit
        self.config = dict(config)
        _check_vocabulary(self.config)
        self._session = _open(graph)

    @classmethod
    def from_pretrained(
        cls,
        source: str | Path,
        *,
        revision: str = "main",
        endpoint: str | None = None,
        token: str | None = None,
        precision: Precision = "int8",
        cache_dir: Path | None = None,
    ) -> Self:
        """Load a student from a folder or from a Hub repository.

        Args:
            source: A student folder, or a repository such as `hikewa/eisv-lumen-student`.
            revision: Tag, branch or commit; resolved to a commit once, and every file is then asked for at
                that commit. A tag seen before is found again without a network.
            endpoint: Address of the Hub; the client's own by default.
            token: Sent only where given.
            precision: Which of the two graphs.
            cache_dir: The Hub client's cache; its own default when None.

        Raises:
            ArtifactError: A file is missing, altered, or of another vocabulary.
            HubError: The Hub cannot be reached or refuses.
            InputError: An unknown precision.
        """
        if precision not in ("int8", "fp32"):
            raise InputError(
                found=f"precision {precision!r}", expected="int8 or fp32", next="pass one of the two"
            )
        graph_name = STUDENT.int8 if precision == "int8" else STUDENT.fp32
        commit = None
        if Path(source).is_dir():
            folder = Path(source)
            version = _folder_version(folder)
        else:
            folder, commit = _download(
                str(source), (STUDENT.config, graph_name), revision, endpoint, token, cache_dir
            )
            version = revision if Version.of_tag(revision) else commit[:12]
        _check_files(folder, (STUDENT.config, graph_name))
        return cls(
            folder / graph_name,
            _read_json(folder / STUDENT.config),
            version=version,
            precision=precision,
            commit=commit,
        )

    def infer(self, window: Windows, generator: np.random.Generator | None = None) -> Heard:
        """Hear one window.

        Args:
            window: `Windows` with N = 1, of 4 to 20 states.
            generator: Where given, the expression is an exact draw from the student's distribution; without
                one, the likeliest id is said at each step.

        Raises:
            WindowError: More than one window, NaN, values out of range, times that decrease, or fewer than
                4 or more than 20 states.
        """
        if len(window) != 1:
            raise WindowError(
                found=f"{len(window)} windows", expected="one window", next="use infer_batch for several"
            )
        shapes, patterns, ids, _, words, confidence, embedding = self._session.run(
            _OUTPUTS, _feed(window, generator)
        )
        return Heard(
            expression=_expression_of(*ids[0].tolist()),
            shape=SHAPES[shapes[0].argmax()],
            shape_probs=shapes[0],
            pattern_probs=patterns[0],
            confidence=float(confidence[0]),
            lumen_words=tuple([LUMEN_WORDS[i] for i in words[0].tolist() if i >= 0]),
            embedding=embedding[0],
            version=self.version,
        )

    def infer_batch(
        self, windows: Windows, generator: np.random.Generator | None = None, *, batch_size: int = BATCH
    ) -> BatchResult:
        """Hear N windows; see `infer`.

        In INT8 the windows of one run share the scales of their activations, so that probabilities move by
        up to about a hundredth with the company a window is in; `batch_size=1` is what a device does.
        """
        if not len(windows):
            blank = self.infer_batch(Windows.of(np.zeros((4, 4)), np.zeros(4)))
            return BatchResult(**{name: values[:0] for name, values in vars(blank).items()})
        feed = _feed(windows, generator)
        if len(windows) <= batch_size:
            return BatchResult(*self._session.run(_OUTPUTS, feed))
        parts = [
            self._session.run(
                _OUTPUTS, {name: array[start : start + batch_size] for name, array in feed.items()}
            )
            for start in range(0, len(windows), batch_size)
        ]
        return BatchResult(
            **{
                name: np.concatenate(arrays)
                for name, arrays in zip(_OUTPUTS, zip(*parts, strict=True), strict=True)
            }
        )

    def check_golden(self, golden: Mapping[str, Any], tolerance: float = GOLDEN_TOLERANCE) -> float:
        """Replay the recorded windows and compare, as a device does before it trusts a model.

        Probabilities must agree within the tolerance. An id may differ from the recorded one only where the
        recorded probabilities of the two lie within twice the tolerance of each other.

        Args:
            golden: Content of the student's `golden.json`.
            tolerance: Largest difference of a probability.

        Returns:
            The largest difference found.

        Raises:
            VerificationError: An output differs by more.
        """
        worst = 0.0
        for number, recorded in enumerate(golden["windows"]):
            times = np.array(recorded["times"])
            # Recorded as the graph takes them, seconds before the last state; a clock's times do as well.
            window = Windows.of(np.array(recorded["states"]), -times if times[0] > times[-1] else times)
            expected = {name: np.array(value) for name, value in recorded[self.precision].items()}
            found = self.infer_batch(window)
            differences = [np.abs(getattr(found, name)[0] - expected[name]).max() for name in _CHECKED]
            differences += _token_differences(found, expected, tolerance)
            largest = float(max(differences))
            worst = max(worst, largest)
            # Written so that NaN fails.
            if not largest <= tolerance:
                raise VerificationError(
                    found=f"golden window {number} differs by {largest:.4f}",
                    expected=f"outputs within {tolerance} of the recorded ones",
                    next="keep the version that works, and report this model and processor",
                )
        return worst


@lru_cache(maxsize=N_CLASSES**MAX_TOKENS)
def _expression_of(first: int, second: int, third: int) -> Expression:
    """The expression of three ids; made once, because checking it costs a good part of a forest's answer."""
    return Expression.from_ids((first, second, third))


def _feed(windows: Windows, generator: np.random.Generator | None) -> dict[str, np.ndarray]:
    """The graph's inputs for windows, checked."""
    if not _complete(windows):
        windows = _checked(windows)
    noise = np.zeros((len(windows), MAX_TOKENS, N_CLASSES), np.float32)
    if generator is not None:
        noise = generator.gumbel(size=noise.shape).astype(np.float32)
    return {
        "states": windows.states.astype(np.float32),
        # Where a state is masked out, the last time is repeated: 0 seconds before the last.
        "times": (windows.times[:, -1:] - windows.times).astype(np.float32),
        "mask": windows.mask,
        "noise": noise,
    }


def _complete(windows: Windows) -> bool:
    """Whether every state is present and in order, as on a device nearly always.

    `Windows.validate` says more, and takes a third of the time in which a forest answers; counting takes less
    of it than the arrays' own `all` does. NaN compares False.
    """
    states, times, mask, count = windows.states, windows.times, windows.mask, np.count_nonzero
    return bool(
        MIN_STATES <= mask.shape[1] <= WINDOW_LENGTH
        and count(mask) == mask.size
        and count((states >= 0.0) & (states <= STATE_MAX)) == states.size
        and count(np.isfinite(times)) == times.size
        and count(times[:, 1:] < times[:, :-1]) == 0
    )


def _checked(windows: Windows) -> Windows:
    """Windows that may be shorter or have gaps: validated, packed, and zero where nothing is present."""
    longest = int(windows.counts.max(initial=1))
    if longest > WINDOW_LENGTH:
        raise WindowError(
            found=f"a window of {longest} states",
            expected=f"at most {WINDOW_LENGTH} states",
            next="cut it with eisv_lumen.series.sliding, or pass its last states",
        )
    packed = windows.validate().packed()
    mask = packed.mask[:, :longest]
    states = np.where(mask[..., None], packed.states[:, :longest], 0.0)
    return Windows(states, packed.times[:, :longest], mask)


def _token_differences(found: BatchResult, expected: dict[str, np.ndarray], tolerance: float) -> list[float]:
    """Differences step by step, as far as both said the same; 1 where another id is no near tie."""
    differences = []
    for step, (said, recorded) in enumerate(zip(found.token_ids[0], expected["token_ids"], strict=True)):
        probs = expected["token_probs"][step]
        differences.append(float(np.abs(found.token_probs[0, step] - probs).max()))
        if said != recorded:
            near = abs(probs[said] - probs[recorded]) <= 2 * tolerance
            return [*differences, 0.0 if near else 1.0]
    return differences


def _open(graph: Path) -> Any:
    """A single-threaded session: more threads burn cores and gain nothing at this size."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 3
    try:
        return onnxruntime.InferenceSession(str(graph), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime raises pybind classes that share no base but Exception
        raise ArtifactError(
            found=f"{graph}: onnxruntime {onnxruntime.__version__} cannot load it ({type(error).__name__})",
            expected="the graph of a student",
            next="download or build the student again",
        ) from error


def _check_vocabulary(config: Mapping[str, Any]) -> None:
    for name in ("dimensions", "shapes", "patterns", "tokens", "lumen_words"):
        if tuple(config.get(name, ())) != getattr(vocabulary, name.upper()):
            raise ArtifactError(
                found=f"a student with other {name.replace('_', ' ')} than this package's",
                expected="a student of the same vocabulary",
                next="install the package version that belongs to this student's release",
            )


def _check_files(folder: Path, names: tuple[str, ...]) -> None:
    """Refuse files that are missing or, where there is a manifest, altered."""
    recorded = (
        artifact.Manifest.read(folder, kind="student").files if (folder / artifact.MANIFEST).exists() else {}
    )
    for name in names:
        path = folder / name
        known = recorded.get(name)
        altered = path.is_file() and known is not None and artifact.sha256_file(path) != known["sha256"]
        if altered or not path.is_file():
            raise ArtifactError(
                found=f"{path} is {'altered' if altered else 'missing'}",
                expected="a complete, unchanged student folder",
                next="download or build the student again",
            )


def _folder_version(folder: Path) -> str:
    release = folder / STUDENT.release
    if release.is_file():
        version = _read_json(release).get("version")
        if isinstance(version, str):
            return version
    if (folder / artifact.MANIFEST).is_file():
        return artifact.Manifest.read(folder).identity[:12]
    return "unversioned"


def _read_json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise ArtifactError(
            found=f"{path}: {type(error).__name__}",
            expected="a JSON object",
            next="download or build the student again",
        ) from error
    return content if isinstance(content, dict) else {}


def _download(
    repository: str,
    names: tuple[str, ...],
    revision: str,
    endpoint: str | None,
    token: str | None,
    cache_dir: Path | None,
) -> tuple[Path, str]:
    """Fetch files of one commit; returns the snapshot's folder and the commit."""
    from huggingface_hub import constants, hf_hub_download

    from eisv_lumen.hub_client import client, hub_errors

    if repository.startswith((".", "/", "~")) or repository.count("/") != 1:
        raise ArtifactError(
            found=f"no folder {repository}",
            expected="a student folder, or a repository such as hikewa/eisv-lumen-student",
            next="check the path",
        )
    cache = Path(cache_dir or constants.HF_HUB_CACHE)
    api = client(endpoint, token)
    address = endpoint or constants.ENDPOINT
    commit = _resolve(api, repository, revision, address, cache)
    with hub_errors(f"download {repository} at {commit[:12]}", address):
        paths = [
            hf_hub_download(
                repository, name, revision=commit, endpoint=endpoint, token=token or False, cache_dir=cache
            )
            for name in (*names, artifact.MANIFEST)
        ]
    return Path(paths[-1]).parent, commit


def _resolve(api: Any, repository: str, revision: str, address: str, cache: Path) -> str:
    """The commit of a revision, asked once; remembered in the client's cache for when there is no network."""
    from eisv_lumen.hub_client import HubUnreachableError, hub_errors

    remembered = cache / f"models--{repository.replace('/', '--')}" / "refs" / revision
    if len(revision) == 40 and all(c in "0123456789abcdef" for c in revision):
        return revision
    try:
        with hub_errors(f"resolve {repository} at {revision}", address):
            commit = str(api.model_info(repository, revision=revision).sha)
    except HubUnreachableError:
        if not remembered.is_file():
            raise
        return remembered.read_text("utf-8").strip()
    remembered.parent.mkdir(parents=True, exist_ok=True)
    partial = remembered.with_name(f".{remembered.name}.partial")
    partial.write_text(commit, "utf-8")
    partial.replace(remembered)
    return commit
