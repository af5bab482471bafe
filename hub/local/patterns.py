"""The pattern language of `.gitignore` and `.gitattributes`, and which files git-lfs should hold."""

import functools
import re

_LFS_PATTERNS = """
*.7z *.arrow *.avro *.bin *.bz2 *.ckpt *.ftz *.gguf *.gz *.h5 *.joblib *.lz4 *.mlmodel *.model *.msgpack
*.npy *.npz *.onnx *.ot *.parquet *.pb *.pickle *.pkl *.pt *.pth *.rar *.safetensors saved_model/**/*
*.sqlite *.tar.* *.tar *.tflite *.tgz *.wasm *.whl *.xz *.zip *.zst *tfevents*
*.flac *.mp3 *.mp4 *.ogg *.wav *.webm
"""
_LFS = "filter=lfs diff=lfs merge=lfs -text"
DEFAULT_ATTRIBUTES = "".join(f"{pattern} {_LFS}\n" for pattern in _LFS_PATTERNS.split()).encode()


@functools.lru_cache(maxsize=4096)
def _regex(pattern: str) -> re.Pattern[str]:
    """A git pattern as a regular expression over a path relative to the repository."""
    anchored = "/" in pattern.rstrip("/")
    pattern = pattern.strip("/") if anchored else pattern.rstrip("/")
    parts = ["" if anchored else "(?:.*/)?"]
    position = 0
    while position < len(pattern):
        piece, position = _next_piece(pattern, position)
        parts.append(piece)
    try:
        return re.compile("".join(parts), re.DOTALL)
    except re.error:
        return re.compile(r"(?!)")


def _next_piece(pattern: str, at: int) -> tuple[str, int]:
    char = pattern[at]
    if pattern.startswith("**/", at) and (at == 0 or pattern[at - 1] == "/"):
        return "(?:.*/)?", at + 3
    if pattern[at:] == "**" and at > 0 and pattern[at - 1] == "/":
        return ".+", at + 2
    if char == "*":
        while at < len(pattern) and pattern[at] == "*":
            at += 1
        return "[^/]*", at
    if char == "?":
        return "[^/]", at + 1
    if char == "[" and (end := pattern.find("]", at + 2)) > 0:
        inside = pattern[at + 1 : end].replace("\\", "\\\\").replace("[:space:]", " ")
        return f"[{'^' + inside[1:] if inside[0] in '!^' else inside}]", end + 1
    if char == "\\" and at + 1 < len(pattern):
        return re.escape(pattern[at + 1]), at + 2
    return re.escape(char), at + 1


class IgnoreRules:
    """A `.gitignore` file at the top of a repository."""

    def __init__(self, content: str) -> None:
        lines = (line.rstrip() for line in content.splitlines())
        self._rules = [line for line in lines if line and not line.startswith("#")]

    def ignores(self, path: str) -> bool:
        """Whether a file is ignored, itself or through one of its folders."""
        parts = path.split("/")
        return any(self._decides("/".join(parts[:n]), n < len(parts)) for n in range(1, len(parts) + 1))

    def _decides(self, path: str, is_folder: bool) -> bool:
        for rule in reversed(self._rules):
            pattern = rule.removeprefix("!")
            if pattern.endswith("/") and not is_folder:
                continue
            if _regex(pattern).fullmatch(path):
                return not rule.startswith("!")
        return False


class LfsRules:
    """The lines of a `.gitattributes` file that say what git-lfs holds."""

    def __init__(self, content: bytes) -> None:
        self._rules: list[tuple[str, bool]] = []
        for line in content.decode("utf-8", "replace").splitlines():
            pattern, attributes = _attribute_line(line.strip())
            for attribute in attributes:
                if attribute.lstrip("-!").split("=")[0] == "filter":
                    self._rules.append((pattern, attribute == "filter=lfs"))

    def holds(self, path: str) -> bool:
        """Whether git-lfs holds a file of this name; the last matching line counts."""
        return next((lfs for pattern, lfs in reversed(self._rules) if _regex(pattern).fullmatch(path)), False)


def _attribute_line(line: str) -> tuple[str, list[str]]:
    if not line or line.startswith("#"):
        return "", []
    if line.startswith('"') and (end := re.search(r'(?<!\\)(?:\\\\)*"', line[1:])):
        pattern = re.sub(r'\\(["\\])', r"\1", line[1 : end.end()])
        return pattern, line[end.end() + 1 :].split()
    pattern, *attributes = line.split()
    return pattern, attributes


def lfs_line(path: str) -> bytes:
    """The `.gitattributes` line that puts exactly one file under git-lfs."""
    pattern = "/" + re.sub(r"([\\*?\[\]])", r"\\\1", path)
    if re.search(r"[\s\"]", pattern):
        pattern = '"' + re.sub(r'(["\\])', r"\\\1", pattern) + '"'
    return f"{pattern} {_LFS}\n".encode()
