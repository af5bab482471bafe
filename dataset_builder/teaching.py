"""The rules that label a dataset learn in a process of their own, until they are needed."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np

from dataset_builder.beside import Beside
from eisv_lumen.rules import Rules

_CONVERGED: dict[int, tuple[np.ndarray, np.ndarray]] = {}
"""Weights and updates of self-scored rules by seed; they are the same for every dataset."""


@contextmanager
def converging(seed: int) -> Iterator[Callable[[], Rules]]:
    """A function that gives self-scored rules; until it is called, they are taught beside this process.

    Where nobody has called it when the context is left, they are given up.
    """
    if seed in _CONVERGED:
        yield lambda: Rules(*_CONVERGED[seed])
        return
    with Beside(lambda _: _converged(seed)) as teaching:

        def finished() -> Rules:
            if seed not in _CONVERGED:
                _CONVERGED[seed] = teaching.finish()
            return Rules(*_CONVERGED[seed])

        yield finished
        if seed not in _CONVERGED:
            teaching.give_up()


def _converged(seed: int) -> tuple[np.ndarray, np.ndarray]:
    rules, updates = Rules.converged(seed)
    return rules.weights, updates
