"""What a training run tells while it runs, and what it leaves written down."""

import json
import math
import sys
import time
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

TRACKIO_PROJECT = "eisv-lumen"


class Progress(TrainerCallback):
    """One moving line on standard error: step, loss, time left; ten lines in all where it is no terminal."""

    def __init__(self, name: str) -> None:
        self.name = name
        self._began = self._first_step = 0.0
        self._loss = math.nan
        self._tenth = -1

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        """Remember when and where the run began, or went on."""
        if not state.is_world_process_zero:
            return
        self._began, self._first_step = time.monotonic(), state.global_step
        self._tenth = int(10 * state.global_step / max(state.max_steps, 1))
        if state.global_step:
            print(f"{self.name}: goes on at step {state.global_step} of {state.max_steps}", file=sys.stderr)

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, Any] | None = None,
        **_: Any,
    ) -> None:
        """Keep the newest loss to show."""
        self._loss = (logs or {}).get("loss", self._loss)

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        """Show where the run is."""
        if not state.is_world_process_zero:
            return
        done, total = state.global_step, max(state.max_steps, 1)
        tenth = int(10 * done / total)
        if not sys.stderr.isatty() and tenth == self._tenth:
            return
        self._tenth = tenth
        rate = (time.monotonic() - self._began) / max(done - self._first_step, 1)
        loss = "" if math.isnan(self._loss) else f"  loss {self._loss:.3f}"
        line = f"{self.name}: step {done}/{total}{loss}  {rate * (total - done):.0f} s left"
        end = "\r" if sys.stderr.isatty() and done < total else "\n"
        print(line.ljust(79), end=end, file=sys.stderr, flush=True)


class TrainingLog(TrainerCallback):
    """Every logged value as plain JSON, and as TensorBoard scalars where a folder is given.

    The file survives a killed run beside its checkpoints; entries after the step a run goes on from are
    written again. Of several processes the first one writes.
    """

    def __init__(self, path: Path, tensorboard: Path | None = None) -> None:
        self.path = Path(path)
        self._tensorboard = tensorboard
        self._writer: Any = None

    @property
    def entries(self) -> list[dict[str, Any]]:
        """What was logged, oldest first."""
        return json.loads(self.path.read_text("utf-8")) if self.path.is_file() else []

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        """Drop what a killed run logged after its last checkpoint; open the TensorBoard writer."""
        if not state.is_world_process_zero:
            return
        self._write([entry for entry in self.entries if entry["step"] <= state.global_step])
        if self._tensorboard is not None:
            try:
                from torch.utils.tensorboard import SummaryWriter
            except ImportError:
                return
            self._writer = SummaryWriter(str(self._tensorboard), purge_step=state.global_step + 1)

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, Any] | None = None,
        **_: Any,
    ) -> None:
        """Add one entry."""
        if not state.is_world_process_zero:
            return
        values = numbers(logs)
        self._write([*self.entries, {"step": state.global_step, **values}])
        if self._writer is not None:
            for name, value in values.items():
                self._writer.add_scalar(name, value, state.global_step)

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        """Close the TensorBoard writer."""
        if self._writer is not None:
            self._writer.close()

    def _write(self, entries: list[dict[str, Any]]) -> None:
        partial = self.path.with_suffix(".partial")
        partial.write_text(json.dumps(entries, indent=1) + "\n", "utf-8")
        partial.replace(self.path)


class Trackio(TrainerCallback):
    """Every logged value in Trackio, on this machine only.

    The Trainer's own integration would make a Space on the Hub where none is named.

    Args:
        name: The run; one that is gone on with keeps its name.
        config: What is worth showing beside the curves.
    """

    def __init__(self, name: str, config: dict[str, Any]) -> None:
        self._name, self._config = name, config
        self._library: Any = None

    @staticmethod
    def installed() -> bool:
        """Is there a Trackio to log to?"""
        return find_spec("trackio") is not None

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        """Begin the run, or go on with it."""
        if state.is_world_process_zero:
            self._guarded(self._begin)

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, Any] | None = None,
        **_: Any,
    ) -> None:
        """Log the values beside their step."""
        if self._library is not None:
            # Early versions take a step and forget it.
            values = {**numbers(logs), "global_step": state.global_step}
            self._guarded(lambda: self._library.log(values, step=state.global_step))

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        """Send what is still waiting."""
        if self._library is not None:
            self._guarded(lambda: self._library.finish())

    def _begin(self) -> None:
        import trackio

        trackio.init(project=TRACKIO_PROJECT, name=self._name, config=self._config, resume="allow")
        self._library = trackio

    def _guarded(self, step: Callable[[], object]) -> None:
        """No curve is worth a training run: a Trackio that fails, in whatever way, is done without."""
        try:
            step()
        except Exception as error:
            self._library = None
            print(
                f"{self._name}: goes on without Trackio ({type(error).__name__}: {error}); "
                "the log is in training_log.json all the same",
                file=sys.stderr,
            )


def numbers(logs: dict[str, Any] | None) -> dict[str, int | float]:
    """The finite numbers among logged values."""
    return {k: v for k, v in (logs or {}).items() if isinstance(v, int | float) and math.isfinite(v)}
