"""Lines of delimited text as arrays: where each field begins and ends, and the numbers that stand there.

A log is read in blocks of whole lines. Delimiters are found with array arithmetic and numbers are converted a
column at a time; only what does not look like a plain number, and lines with irregular quotes, are read one
by one. A line that is no record is counted by reason and spoils no other line.
"""

import codecs
import csv
import gzip
import io
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Self

import numpy as np

from eisv_lumen.errors import SourceError

BLOCK = 1 << 20
"""Bytes read at once."""
LONGEST_LINE = 1 << 16
"""A line that runs on beyond this many bytes over the end of a block is no line of text."""
NO_VALUE = frozenset({"", "nan", "null", "none", "na", "n/a", "-", "nil"})

_LONGEST_NUMBER = 17
_LONGEST_TEXT = 64
_LONGEST_NAME = 256
_EXACT = 1 << 53
_POWERS = 10.0 ** np.arange(_LONGEST_NUMBER + 1)
_NEWLINE, _RETURN, _QUOTE, _COMMENT = b'\n\r"#'
_SPACES = np.isin(np.arange(256), list(b" \t\r\v\f"))


class LineBlocks:
    """The whole lines of a text file, plain or gzipped, as UTF-8, each ended by a newline, block by block.

    Attributes:
        cut_off: The compressed data ended too early or was damaged.
        unfinished: Lines cut off with it.
        overlong: Lines too long to be one.

    Raises:
        SourceError: The file cannot be opened, or nothing of it can be read.
    """

    def __init__(self, path: Path) -> None:
        self.cut_off = False
        self.unfinished = 0
        self.overlong = 0
        self._path = path

    def __iter__(self) -> Iterator[bytes]:
        rest, skipping = b"", False
        for data in _as_utf8(self._read()):
            if skipping:
                begin = data.find(b"\n") + 1
                skipping, data = not begin, data[begin:] if begin else b""
            data = rest + data
            end = data.rfind(b"\n") + 1
            if end:
                yield data[:end]
            rest = data[end:]
            if len(rest) > LONGEST_LINE:
                self.overlong += 1
                rest, skipping = b"", True
        if rest and self.cut_off:
            self.unfinished += 1
        elif rest:
            yield rest + b"\n"

    def _read(self) -> Iterator[bytes]:
        """Bytes of the file, unpacked; data that is damaged ends where the damage begins."""
        try:
            with self._path.open("rb") as raw:
                packed = raw.peek(2)[:2] == b"\x1f\x8b"
                file: io.BufferedIOBase = gzip.GzipFile(fileobj=raw) if packed else raw
                begun = False
                while True:
                    data, error = _filled(file)
                    begun |= bool(data)
                    if data:
                        yield data
                    if error is not None and not begun:
                        raise error
                    self.cut_off = error is not None
                    if error is not None or not data:
                        return
        except (EOFError, OSError, zlib.error) as error:
            raise SourceError(
                found=f"{self._path.name}: {getattr(error, 'strerror', None) or type(error).__name__}",
                expected="a readable CSV file (.csv or .csv.gz)",
                next="check the path and the permissions of the file",
            ) from error


def _filled(file: io.BufferedIOBase) -> tuple[bytes, Exception | None]:
    """A block, and the error that ended it; `read1` keeps what was unpacked before the damage."""
    parts, size = [], 0
    try:
        while size < BLOCK and (part := file.read1(BLOCK - size)):
            parts.append(part)
            size += len(part)
    except (EOFError, OSError, zlib.error) as error:
        return b"".join(parts), error
    return b"".join(parts), None


def _as_utf8(blocks: Iterator[bytes]) -> Iterator[bytes]:
    """The same text in UTF-8 without a byte order mark, its lines ended by a newline."""
    first = next(blocks, b"")
    encoding = _utf16(first) or _eight_bit(first)
    decoder = codecs.getincrementaldecoder(encoding)("replace") if encoding else None
    first = first.removeprefix(codecs.BOM_UTF8)
    head = decoder.decode(first).removeprefix("\ufeff").encode("utf-8", "replace") if decoder else first
    returns = b"\r" in head and b"\n" not in head
    yield head.replace(b"\r", b"\n") if returns else head
    for block in blocks:
        data = decoder.decode(block).encode("utf-8", "replace") if decoder else block
        yield data.replace(b"\r", b"\n") if returns else data


def _utf16(head: bytes) -> str | None:
    """The encoding, if it is UTF-16: by its mark, or by a first line of which every second byte is zero."""
    if head[:2] in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE):
        return "utf-16-le" if head[:2] == codecs.BOM_UTF16_LE else "utf-16-be"
    even, odd = head[0:64:2], head[1:64:2]
    if len(head) < 8 or (not any(even)) == (not any(odd)):
        return None
    return "utf-16-le" if not any(odd) else "utf-16-be" if not any(even) else None


def _eight_bit(head: bytes) -> str | None:
    """The encoding of western desktops, where the first line is no UTF-8."""
    try:
        head.partition(b"\n")[0].decode("utf-8")
    except UnicodeDecodeError:
        return "cp1252"
    return None


@dataclass(frozen=True)
class Fields:
    """Chosen columns of N lines.

    Attributes:
        buffer: The text, uint8.
        starts: `[C, N]` where each field begins.
        ends: `[C, N]` where it ends.
    """

    buffer: np.ndarray
    starts: np.ndarray
    ends: np.ndarray

    def __len__(self) -> int:
        """Number of lines, N."""
        return self.starts.shape[1]

    def texts(self, column: int) -> list[str]:
        """The texts of a column; one that is too long for a time or a number is empty."""
        return self._characters(column, slice(None), _LONGEST_TEXT)

    def names(self, column: int) -> tuple[list[str], np.ndarray]:
        """The distinct texts of a column as they first appear, and which of them `[N]` each line holds."""
        starts, ends = self.starts[column], self.ends[column]
        block = _gathered(self.buffer, starts, np.minimum(ends - starts, _LONGEST_NAME))
        packed = block.view(f"S{block.shape[1]}").ravel()
        if len(packed) and (packed == packed[0]).all():
            return [packed[0].decode("utf-8", "replace")], np.zeros(len(packed), np.int64)
        distinct, first, inverse = np.unique(packed, return_index=True, return_inverse=True)
        order = np.argsort(first)
        rank = np.empty(len(order), np.int64)
        rank[order] = np.arange(len(order))
        return [distinct[at].decode("utf-8", "replace") for at in order], rank[inverse]

    def numbers(self, column: int, *, decimal_comma: bool = False) -> tuple[np.ndarray, int]:
        """`[N]` float64 values of a column, NaN where none stands, and how many texts were no number."""
        starts, ends = self.starts[column], self.ends[column]
        values, plain = _decimals(self.buffer, starts, ends, b".,"[decimal_comma])
        odd = np.flatnonzero(~plain & (ends > starts))
        if not len(odd):
            return values, 0
        texts = self._characters(column, odd, _LONGEST_TEXT, too_long="?")
        values[odd] = read = numbers_of(
            [text.replace(",", ".") for text in texts] if decimal_comma else texts
        )
        unreadable = np.isneginf(read)
        values[odd[unreadable]] = np.nan
        return values, int(unreadable.sum())

    def _characters(
        self, column: int, rows: slice | np.ndarray, longest: int, too_long: str = ""
    ) -> list[str]:
        starts = self.starts[column][rows]
        widths = self.ends[column][rows] - starts
        block = _gathered(self.buffer, starts, np.where(widths > longest, 0, widths))
        texts: list[str] = block.astype(np.uint32).view(f"U{block.shape[1]}").ravel().tolist()
        for row in np.flatnonzero(widths > longest).tolist():
            texts[row] = too_long
        return texts


def numbers_of(texts: Sequence[str]) -> np.ndarray:
    """`[N]` numbers; NaN where a text says that there is none, minus infinity where it is no number."""
    if "_" not in "".join(texts):  # Python reads 1_000 as a number
        try:
            return np.fromiter(map(float, texts), np.float64, len(texts))
        except ValueError:
            pass
    return np.array([_number(text) for text in texts], np.float64)


def _number(text: str) -> float:
    text = text.strip()
    if text.lower() in NO_VALUE:
        return np.nan
    try:
        return -np.inf if "_" in text else float(text)
    except ValueError:
        return -np.inf


def _gathered(buffer: np.ndarray, starts: np.ndarray, widths: np.ndarray) -> np.ndarray:
    """`[n, W]` characters of texts, zero behind the end of each; W is at least 1."""
    longest = max(int(widths.max(initial=0)), 1)
    if len(starts) and int(starts.max()) + longest > len(buffer):
        buffer = np.concatenate([buffer, np.zeros(longest, np.uint8)])
    block = np.lib.stride_tricks.sliding_window_view(buffer, longest)[starts]
    behind = np.arange(longest) >= widths[:, None] if int(widths.min(initial=longest)) < longest else None
    if behind is not None:
        block[behind] = 0
    return block


def _decimals(
    buffer: np.ndarray, starts: np.ndarray, ends: np.ndarray, point: int
) -> tuple[np.ndarray, np.ndarray]:
    """`[N]` values of plain decimals such as -12.50, and which `[N]` texts are one; the others are NaN.

    The digits make an integer below 2^53 and the power of ten is exact, so their quotient is the nearest
    float64: the same that `float` gives.
    """
    widths = ends - starts
    first = buffer[np.minimum(starts, len(buffer) - 1)]
    negative = (first == ord("-")) & (widths > 0)
    signed = negative | ((first == ord("+")) & (widths > 0))
    starts, widths = starts + signed, widths - signed
    mantissa, places = np.zeros(len(starts), np.int64), np.zeros(len(starts), np.int8)
    digits, points = np.zeros((2, len(starts)), np.int8)
    for place in range(min(int(widths.max(initial=0)), _LONGEST_NUMBER)):
        character = buffer[np.minimum(starts + place, len(buffer) - 1)]
        inside = widths > place
        digit = character - np.uint8(ord("0"))
        is_digit = (digit < 10) & inside
        points += (character == point) & inside
        digits += is_digit
        places += is_digit & (points > 0)
        np.copyto(mantissa, mantissa * 10 + digit, where=is_digit)
    plain = (digits > 0) & (points <= 1) & (digits + points == widths) & (mantissa < _EXACT)
    values = mantissa / _POWERS[places]
    np.negative(values, out=values, where=negative)
    values[~plain] = np.nan
    return values, plain


@dataclass(frozen=True)
class LineForm:
    """What a record of a file looks like.

    Attributes:
        header: The first line, stripped.
        delimiter: One character.
        columns: Number of fields.
        wanted: Which of them are read.
    """

    header: bytes
    delimiter: str
    columns: int
    wanted: tuple[int, ...]

    def split(self, block: bytes) -> "SplitBlock":
        """The records of a block of whole lines."""
        return SplitBlock.of(block, self)


@dataclass(frozen=True)
class SplitBlock:
    """The records of a block, in order, and what else it held.

    Attributes:
        fields: The wanted columns of the records.
        lines: Lines that are not blank, records or not.
        dropped: Lines that are no record, by reason.
    """

    fields: Fields
    lines: int
    dropped: dict[str, int]

    @classmethod
    def of(cls, block: bytes, form: LineForm) -> Self:
        """Split a block; every line of it ends with a newline."""
        lines = _Lines(block, form)
        dropped: dict[str, int] = {}
        kept = lines.widths > 0
        kept &= lines.delimiters != lines.widths  # nothing but delimiters is a blank line too
        count = int(kept.sum())
        for reason, found in lines.no_records():
            if hit := int((kept & found).sum()):
                dropped[reason] = hit
                kept &= ~found
        whole = kept & (lines.delimiters == form.columns - 1)
        fields, read = lines.fields(whole, kept)
        if wrong := int(kept.sum()) - read:
            dropped["wrong number of fields"] = wrong
        return cls(fields, count, dropped)


class _Lines:
    """The lines of a block, L of them, and where their delimiters stand."""

    def __init__(self, block: bytes, form: LineForm) -> None:
        self.block, self.form = block, form
        self.buffer = np.frombuffer(block, np.uint8)
        self.stops = np.flatnonzero(self.buffer == _NEWLINE)
        self.starts = np.concatenate([[0], self.stops[:-1] + 1])
        self.ends = self.stops
        self.starts, self.ends = _trimmed(self.buffer, self.starts, self.ends, form.delimiter)
        self.widths = self.ends - self.starts
        self.at = np.flatnonzero(self.buffer == ord(form.delimiter))

    @cached_property
    def delimiters(self) -> np.ndarray:
        """`[L]` delimiters in each line."""
        per_line = self.form.columns - 1
        if len(self.at) == len(self.stops) * per_line and per_line:
            table = self.at.reshape(-1, per_line)
            if (table[:, 0] >= self.starts).all() and (table[:, -1] < self.stops).all():
                return np.full(len(self.stops), per_line)
        return np.diff(np.searchsorted(self.at, self.stops), prepend=0)

    def no_records(self) -> Iterator[tuple[str, np.ndarray]]:
        """Reasons for which a line is no record, and the lines `[L]` to which each applies."""
        first = self.buffer[np.minimum(self.starts, len(self.buffer) - 1)]
        if b"#" in self.block:
            yield "comment", first == _COMMENT
        if b"\0" in self.block:
            yield "NUL bytes", self._holding(0) > 0
        header = self.form.header
        if header:
            same = (self.widths == len(header)) & (first == header[0])
            for row in np.flatnonzero(same).tolist():
                same[row] = self.block[self.starts[row] : self.ends[row]] == header
            yield "repeated header", same

    def fields(self, whole: np.ndarray, kept: np.ndarray) -> tuple[Fields, int]:
        """The wanted fields of the lines that have the right number of them, and how many lines those are."""
        rows = np.flatnonzero(whole)
        starts, ends = self._borders(rows, self.form.wanted)
        if b'"' in self.block:
            return self._unquoted(rows, starts, ends, kept)
        return self._stripped(self.buffer, starts, ends), len(rows)

    def _borders(self, rows: np.ndarray, columns: Sequence[int]) -> tuple[np.ndarray, np.ndarray]:
        """`[C, n]` begin and end of each field of lines with the right number of delimiters."""
        per_line = self.form.columns - 1
        before = np.cumsum(self.delimiters) - self.delimiters
        starts, ends = np.empty((2, len(columns), len(rows)), np.int64)
        for row, column in enumerate(columns):
            starts[row] = self.at[before[rows] + column - 1] + 1 if column else self.starts[rows]
            ends[row] = self.at[before[rows] + column] if column < per_line else self.ends[rows]
        return starts, ends

    def _unquoted(
        self, rows: np.ndarray, starts: np.ndarray, ends: np.ndarray, kept: np.ndarray
    ) -> tuple[Fields, int]:
        """Quotes around whole fields are left out; a line with any other quotes is read on its own."""
        all_starts, all_ends = self._borders(rows, range(self.form.columns))
        around = _quoted(self.buffer, all_starts, all_ends).sum(axis=0)
        quotes = self._holding(_QUOTE)
        regular = quotes[rows] == 2 * around
        enclosed = _quoted(self.buffer, starts, ends)
        starts, ends = (starts + enclosed)[:, regular], (ends - enclosed)[:, regular]
        odd = kept & (quotes > 0)
        odd[rows[regular]] = False
        number, buffer, more = self._one_by_one(np.flatnonzero(odd))
        order = np.argsort(np.concatenate([rows[regular], number]), kind="stable")
        starts = np.concatenate([starts, more[0]], axis=1)[:, order]
        ends = np.concatenate([ends, more[1]], axis=1)[:, order]
        return self._stripped(buffer, starts, ends), len(order)

    def _one_by_one(self, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Lines read by the csv module: which are records, the buffer with their fields, and the borders."""
        number, extra, borders = [], bytearray(), []
        for row in rows.tolist():
            text = self.block[self.starts[row] : self.ends[row]].decode("utf-8", "replace")
            try:
                cells = next(csv.reader([text], delimiter=self.form.delimiter, skipinitialspace=True), [])
            except csv.Error:
                continue
            if len(cells) != self.form.columns:
                continue
            number.append(row)
            for column in self.form.wanted:
                begin = len(self.block) + len(extra)
                extra += cells[column].encode("utf-8")
                borders.append((begin, len(self.block) + len(extra)))
        # A byte behind the last field keeps every position within the buffer.
        buffer = np.frombuffer(self.block + bytes(extra) + b"\n", np.uint8) if number else self.buffer
        shape = (len(number), len(self.form.wanted), 2)
        return np.array(number, np.int64), buffer, np.array(borders, np.int64).reshape(shape).T

    def _stripped(self, buffer: np.ndarray, starts: np.ndarray, ends: np.ndarray) -> Fields:
        if b" " in self.block or b"\t" in self.block:
            starts, ends = _trimmed(buffer, starts, ends)
        return Fields(buffer, starts, ends)

    def _holding(self, byte: int) -> np.ndarray:
        """`[L]` how often each line holds a byte."""
        lines = np.searchsorted(self.stops, np.flatnonzero(self.buffer == byte))
        return np.bincount(lines, minlength=len(self.stops))


def _quoted(buffer: np.ndarray, starts: np.ndarray, ends: np.ndarray) -> np.ndarray:
    """Fields that begin and end with a quote."""
    last = len(buffer) - 1
    return (ends - starts >= 2) & (buffer[np.minimum(starts, last)] == _QUOTE) & (buffer[ends - 1] == _QUOTE)


def _trimmed(
    buffer: np.ndarray, starts: np.ndarray, ends: np.ndarray, delimiter: str = ""
) -> tuple[np.ndarray, np.ndarray]:
    """Begin and end of each text without the white space around it; a delimiter is none."""
    spaces = _SPACES.copy()
    if delimiter:
        spaces[ord(delimiter)] = False
    last = len(buffer) - 1
    for _ in range(_LONGEST_TEXT):
        blank = (starts < ends) & spaces[buffer[np.minimum(starts, last)]]
        if not blank.any():
            break
        starts = starts + blank
    for _ in range(_LONGEST_TEXT):
        blank = (starts < ends) & spaces[buffer[ends - 1]]
        if not blank.any():
            break
        ends = ends - blank
    return starts, ends
