"""Batches of bounded size, and what happens when memory runs out."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

import torch

Row = TypeVar("Row")


class Batcher:
    """Runs rows in batches by a budget of tokens, halving it when memory runs out.

    Args:
        budget: Tokens per batch, padding included.
        warn: Told when the budget is halved.
        free: Called then, to let go of what can be computed again.
    """

    def __init__(self, budget: int, warn: Callable[[str], None], free: Callable[[], None]) -> None:
        self.budget = budget
        self.warn = warn
        self.free = free

    def run(self, rows: Sequence[Row], length: Callable[[Row], int], action: Callable[[list[Row]], None]) -> None:
        """Call an action for every batch.

        Args:
            rows: In any order.
            length: Tokens of a row.
            action: What is done with a batch; it may be called again for parts of one that did not fit.

        Raises:
            torch.OutOfMemoryError: If a single row does not fit.
        """
        for batch in self._batches(rows, length):
            self._bounded(batch, action)

    def _batches(self, rows: Sequence[Row], length: Callable[[Row], int]) -> Iterator[list[Row]]:
        """Cut rows, longest first: what does not fit shows at once, and rows of like length are padded little."""
        batch: list[Row] = []
        longest = 0
        for row in sorted(rows, key=length, reverse=True):
            if batch and longest * (len(batch) + 1) > self.budget:
                yield batch
                batch = []
            longest = longest if batch else length(row)
            batch.append(row)
        if batch:
            yield batch

    def _bounded(self, rows: list[Row], action: Callable[[list[Row]], None]) -> None:
        try:
            action(rows)
            return
        except torch.OutOfMemoryError:
            if len(rows) == 1:
                raise
        # Outside the handler, whose traceback would keep the failed batch's tensors alive.
        self.free()
        torch.cuda.empty_cache()
        self.budget = max(1, self.budget // 2)
        self.warn(f"out of memory with {len(rows)} prompts at once; going on with token_budget={self.budget}")
        half = len(rows) // 2
        for part in (rows[:half], rows[half:]):
            self._bounded(part, action)
