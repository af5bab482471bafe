"""First-order recurrences over long columns, in blocks: fast on a log, exact on a stream."""

import numpy as np

BLOCK = 256


class Recurrence:
    """`y[t] = a[t] * y[t-1] + b[t]` for C columns, fed chunk by chunk.

    Blocks of `BLOCK` rows are solved side by side from zero and joined through the product of their
    coefficients. Block borders lie at fixed row numbers since the start, whatever the chunks were, so the
    result does not depend on how a log is cut into chunks, down to the last bit.
    """

    def __init__(self, columns: int) -> None:
        self._position = 0
        self._before = np.zeros(columns)
        self._local = np.zeros(columns)
        self._product = np.ones(columns)

    @property
    def value(self) -> np.ndarray:
        """`[C]` the latest y; zeros before the first row."""
        return self._local + self._product * self._before

    def run(self, a: np.ndarray, b: np.ndarray) -> np.ndarray:
        """The next rows.

        Args:
            a: `[n, C]` coefficients in [0, 1].
            b: `[n, C]` additions.

        Returns:
            `[n, C]` values y.
        """
        n, columns = b.shape
        start = self._position
        blocks = -(-(start + n) // BLOCK) or 1
        product, local = np.ones((2, blocks * BLOCK, columns))
        local[:] = 0.0
        product[start : start + n], local[start : start + n] = a, b
        if start:
            product[start - 1], local[start - 1] = self._product, self._local
        # [row in block, block, column]: one step solves a row of every block.
        product = np.ascontiguousarray(product.reshape(blocks, BLOCK, columns).swapaxes(0, 1))
        local = np.ascontiguousarray(local.reshape(blocks, BLOCK, columns).swapaxes(0, 1))
        first, last = (max(start, 1), start + n) if blocks == 1 else (1, BLOCK)
        for row in range(first, last):
            local[row] += product[row] * local[row - 1]
            product[row] *= product[row - 1]
        before = np.empty((blocks, columns))
        before[0] = self._before
        for block in range(1, blocks):
            before[block] = local[-1, block - 1] + product[-1, block - 1] * before[block - 1]
        y = (local + product * before).swapaxes(0, 1).reshape(-1, columns)[start : start + n]
        self._keep(start + n - (blocks - 1) * BLOCK, before[-1], local[:, -1], product[:, -1])
        return y

    def _keep(self, position: int, before: np.ndarray, local: np.ndarray, product: np.ndarray) -> None:
        if position == 0:
            return
        if position == BLOCK:
            self._before = local[-1] + product[-1] * before
            self._position, position = 0, 0
            self._local, self._product = np.zeros_like(before), np.ones_like(before)
            return
        self._position = position
        self._before, self._local, self._product = before, local[position - 1], product[position - 1]


class MovingAverage:
    """Exponential moving averages of C columns with missing values, fed chunk by chunk.

    A column's first value starts its average. Where a value is missing the average is held.
    With `warm_up` the factor is 1/n for the first readings, so that the average begins as a plain mean.
    """

    def __init__(self, columns: int, alpha: float, *, warm_up: bool = False) -> None:
        self.alpha = alpha
        self.count = np.zeros(columns, np.int64)
        self._warm_up = warm_up
        self._recurrence = Recurrence(columns)

    def run(self, values: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """The next rows `[n, C]`, NaN where missing.

        Returns:
            The averages including each row, those before each row (0 before the first value), and how many
            values each average before the row holds; all `[n, C]`.
        """
        present = ~np.isnan(values)
        seen = self.count + np.cumsum(present, axis=0)
        factor = np.full(values.shape, self.alpha)
        if self._warm_up:
            factor = np.maximum(factor, 1.0 / np.maximum(seen, 1))
        factor[present & (seen == 1)] = 1.0
        factor[~present] = 0.0
        latest = self._recurrence.value
        after = self._recurrence.run(1.0 - factor, factor * np.where(present, values, 0.0))
        before = np.concatenate([latest[None], after[:-1]])
        counted = np.concatenate([self.count[None], seen[:-1]])
        self.count = seen[-1] if len(seen) else self.count
        return after, before, counted
