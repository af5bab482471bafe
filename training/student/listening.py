"""The first stage: summary and shape head learn to hear shapes in very many windows.

What a window shows of itself takes several times as long to compute as a step of the small network that
listens to it, and nothing learned comes before it: it is computed once per window, beside the training, and
heard several times.
"""

import copy
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType

import numpy as np
import torch
from torch import Tensor, nn

from training.student.batches import Batches, inputs_of
from training.student.modeling_eisv_lumen import TrajectoryTransformer
from training.student.settings import StudentSettings

_PART = 131_072
"""Windows that are kept at a time, about; they take 100 MB, and as many are made ready meanwhile."""
_AT_ONCE = 512
"""Windows computed at once: what is worked on stays within a processor's cache."""

Shown = tuple[Tensor, Tensor]
"""What N windows show, `[N, F]` float16, and their shapes `[N]`."""


class Listening(nn.Module):
    """The student hearing shapes from the summary alone."""

    def __init__(self, student: TrajectoryTransformer) -> None:
        super().__init__()
        self.student = student
        self.parts: dict[str, list[float]] = {}

    def forward(self, shown: Tensor, shapes: Tensor) -> dict[str, Tensor]:
        """Cross-entropy of `shapes` `[B]`."""
        return {"loss": nn.functional.cross_entropy(self.student.shape_from_summary(shown), shapes)}


class Order(torch.utils.data.Sampler[int]):
    """Numbers of windows in the order heard: each part so many times, shuffled anew, before the next.

    Attributes:
        first: Part to begin with, when a training goes on.
    """

    def __init__(self, parts: int, size: int, passes: int, seed: int) -> None:
        self.parts, self.size, self.passes, self.seed = parts, size, passes, seed
        self.first = 0

    def __iter__(self) -> Iterator[int]:
        """The numbers of all parts from the first one on, `passes` times each."""
        for part in range(self.first, self.parts):
            for turn in range(self.passes):
                shuffled = np.random.default_rng((self.seed, part, turn)).permutation(self.size)
                yield from (part * self.size + shuffled).tolist()

    def __len__(self) -> int:
        """How many numbers come from all parts."""
        return self.parts * self.size * self.passes


class Audience:
    """Fresh variants of windows part by part, as `Listening` hears them; the next part is made meanwhile."""

    def __init__(self, student: TrajectoryTransformer, batches: Batches, settings: StudentSettings) -> None:
        """An audience in a `with` block, which ends its threads.

        Args:
            student: Whose features are computed; none of its weights has a part in them.
            batches: Of which windows.
            settings: How many windows, in batches of which size, drawn how. Parts are whole batches, which
                makes a few windows more.
        """
        stage = settings.listening
        parts = -(-stage.windows // _PART)
        size = -(-stage.windows // (parts * stage.batch_size)) * stage.batch_size
        self.order = Order(parts, size, stage.passes, settings.seed)
        self.steps = len(self.order) // stage.batch_size
        self.steps_per_part = size * stage.passes // stage.batch_size
        # A copy stays on the CPU, wherever the student is trained.
        self._student, self._batches, self._seed = copy.deepcopy(student), batches, settings.seed
        chances = batches.chances(balance=settings.balance, real_share=settings.real_share)
        self._up_to = chances.cumsum()
        beside = max(1, (os.cpu_count() or 1) - 1)
        self._threads = ThreadPoolExecutor(beside, initializer=torch.set_num_threads, initargs=(1,))
        self._coming: dict[int, list[Future[Shown]]] = {}
        self._here = -1
        self._shown: Shown

    def __enter__(self) -> "Audience":
        """Begin."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End the threads."""
        self._threads.shutdown(cancel_futures=True)

    def __call__(self, indices: Sequence[int]) -> dict[str, Tensor]:
        """A batch for `Listening.forward`, of windows of one part."""
        part = indices[0] // self.order.size
        if part != self._here:
            self._turn_to(part)
        shown, shapes = self._shown
        chosen = torch.tensor(indices) - part * self.order.size
        return {"shown": shown[chosen].float(), "shapes": shapes[chosen]}

    def _turn_to(self, part: int) -> None:
        self._ask_for(part)
        made = [future.result() for future in self._coming.pop(part)]
        self._shown = torch.cat([shown for shown, _ in made]), torch.cat([shapes for _, shapes in made])
        self._here = part
        if part + 1 < self.order.parts:
            self._ask_for(part + 1)

    def _ask_for(self, part: int) -> None:
        if part not in self._coming:
            starts = range(0, self.order.size, _AT_ONCE)
            self._coming[part] = [self._threads.submit(self._make, part, start) for start in starts]

    def _make(self, part: int, start: int) -> Shown:
        generator = np.random.default_rng((self._seed, part, start))
        count = min(_AT_ONCE, self.order.size - start)
        drawn = np.searchsorted(self._up_to, generator.random(count) * self._up_to[-1], side="right")
        windows, shapes = self._batches.of_shapes(drawn, generator)
        with torch.inference_mode():
            shown = self._student.shown(**inputs_of(windows)).half()
        return shown, torch.from_numpy(shapes)
