"""Windows with what is known of them, as arrays: the rows of a dataset before they are written."""

from dataclasses import dataclass, fields
from typing import Self

import numpy as np

from dataset_builder.cutting import Batch
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
        number: `[N]` ordinal of a synthetic window in its split; of a real one, how often the clock had
            stepped back where it thereby repeats an earlier time.
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
    number: np.ndarray

    @classmethod
    def real(cls, batch: Batch, *, source: str, device: str, scale: str, cadence: float) -> Self:
        """Windows cut from a log; states are stored, and from here on known, as float32."""
        n, start = len(batch), batch.times[:, :1]
        return cls(
            states=np.clip(batch.states, np.float32(0), STATE_MAX.astype(np.float32)),
            times=(batch.times - start).astype(np.float32),
            drift=np.full(batch.times.shape, np.nan, np.float32),
            start=start[:, 0],
            source=np.full(n, source, object),
            device=np.full(n, device, object),
            provenance=np.full(n, REAL, object),
            scale=np.full(n, scale, object),
            cadence=np.full(n, cadence, np.float32),
            split=np.full(n, batch.stretch.split, np.int64),
            number=np.full(n, batch.stretch.again, np.int64),
        )

    @classmethod
    def synthetic(
        cls, windows: Windows, *, source: str, split: int, first: int, cadence: np.ndarray, scale: np.ndarray
    ) -> Self:
        """Windows that were made, numbered from `first` on."""
        n, start = len(windows), windows.times[:, :1]
        drift = (
            np.full(windows.times.shape, np.nan) if windows.ethical_drift is None else windows.ethical_drift
        )
        return cls(
            states=np.clip(windows.states, 0.0, STATE_MAX).astype(np.float32),
            times=(windows.times - start).astype(np.float32),
            drift=np.round(drift, 3).astype(np.float32),
            start=start[:, 0],
            source=np.full(n, source, object),
            device=np.full(n, source, object),
            provenance=np.full(n, SYNTHETIC, object),
            scale=scale.astype(object),
            cadence=cadence.astype(np.float32),
            split=np.full(n, split, np.int64),
            number=np.arange(first, first + n),
        )

    @classmethod
    def join(cls, parts: list[Self]) -> Self:
        """Tables one after the other; at least one."""
        if len(parts) == 1:
            return parts[0]
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

    def names(self) -> list[str]:
        """`[N]` unique name of each window: where it comes from and when it began."""
        rows = zip(
            self.source, self.device, self.scale, self.start.tolist(), self.number.tolist(), strict=True
        )
        return [
            f"{source}:{SPLITS[split]}:{number + 1}"
            if provenance == SYNTHETIC
            else f"{source if device == source else f'{source}:{device}'}:{scale}:{start:.3f}"
            + (f"#{number + 1}" if number else "")
            for (source, device, scale, start, number), provenance, split in zip(
                rows, self.provenance, self.split.tolist(), strict=True
            )
        ]
