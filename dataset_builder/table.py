"""Windows with what is known of them, as arrays: the rows of a dataset before they are written."""

from dataclasses import dataclass, fields
from typing import Self

import numpy as np

from eisv_lumen.layouts import SPLITS
from eisv_lumen.vocabulary import STATE_MAX
from eisv_lumen.windows import Windows

REAL, SYNTHETIC = "real", "synthetic"


@dataclass(frozen=True)
class Table:
    """N windows.

    Attributes:
        states: `[N, T, 4]` float32 E, I, S, V.
        times: `[N, T]` float32 seconds since the window began.
        drift: `[N, T]` float32 ethical drift, NaN where nothing reports it.
        start: `[N]` seconds since the epoch at which the window began.
        source: `[N]` name of the log or generator.
        device: `[N]` the device that recorded it.
        provenance: `[N]` `real` or `synthetic`.
        scale: `[N]` `native`, `30s`, …
        cadence: `[N]` float32 seconds between states.
        split: `[N]` index into `SPLITS`.
    """

    states: np.ndarray
    times: np.ndarray
    drift: np.ndarray
    start: np.ndarray
    source: np.ndarray
    device: np.ndarray
    provenance: np.ndarray
    scale: np.ndarray
    cadence: np.ndarray
    split: np.ndarray

    @classmethod
    def of(
        cls,
        windows: Windows,
        *,
        source: str,
        device: str,
        provenance: str,
        scale: str | np.ndarray,
        cadence: float | np.ndarray,
        split: int,
    ) -> Self:
        """Windows that share their origin; states are stored, and from here on known, as float32."""
        n = len(windows)
        start = windows.times[:, :1]
        drift = (
            np.full(windows.times.shape, np.nan) if windows.ethical_drift is None else windows.ethical_drift
        )
        return cls(
            states=np.clip(windows.states, 0.0, STATE_MAX).astype(np.float32),
            times=(windows.times - start).astype(np.float32),
            drift=drift.astype(np.float32),
            start=start[:, 0],
            source=np.full(n, source, object),
            device=np.full(n, device, object),
            provenance=np.full(n, provenance, object),
            scale=np.full(n, scale, object),
            cadence=np.full(n, cadence, np.float32),
            split=np.full(n, split, np.int64),
        )

    @classmethod
    def join(cls, parts: list[Self]) -> Self:
        """Tables one after the other; at least one."""
        return cls(**{f.name: np.concatenate([getattr(part, f.name) for part in parts]) for f in fields(cls)})

    def __len__(self) -> int:
        """Number of windows, N."""
        return len(self.start)

    def __getitem__(self, rows: np.ndarray | slice) -> Self:
        """The chosen windows."""
        return type(self)(**{f.name: getattr(self, f.name)[rows] for f in fields(self)})

    @property
    def end(self) -> np.ndarray:
        """`[N]` seconds since the epoch of the last state."""
        return self.start + self.times[:, -1].astype(np.float64)

    def windows(self) -> Windows:
        """The windows as every other part of the project takes them."""
        known = ~np.isnan(self.drift)
        drift = np.where(known, self.drift, 0.0) if known.any() else None
        return Windows.of(self.states, self.times, ethical_drift=drift)

    def names(self) -> np.ndarray:
        """`[N]` unique name of each window: where it comes from and when it began."""
        names = np.empty(len(self), object)
        seen: dict[str, int] = {}
        rows = zip(self.source, self.device, self.scale, self.start.tolist(), strict=True)
        for row, (source, device, scale, start) in enumerate(rows):
            if self.provenance[row] == SYNTHETIC:
                made = f"{source}:{SPLITS[self.split[row]]}"
                seen[made] = seen.get(made, 0) + 1
                names[row] = f"{made}:{seen[made]}"
                continue
            place = source if device == source else f"{source}:{device}"
            name = f"{place}:{scale}:{start:.3f}"
            count = seen[name] = seen.get(name, 0) + 1
            names[row] = name if count == 1 else f"{name}#{count}"
        return names
