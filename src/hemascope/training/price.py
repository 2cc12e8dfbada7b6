"""What training cost, counted in a way that does not depend on the machine, and in seconds."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

FORWARD = 1.0
BACKWARD = 2.0
"""A backward pass computes two products for each one of the forward pass: by input and by weight."""


@dataclass
class Price:
    """Passes through the network, scaled by pixels, in units of one full epoch.

    One full epoch is a forward and a backward pass of every training image at the prepared size. A backward pass
    through a partly frozen network is counted whole, although it costs less. Optimiser steps and the head alone
    (thousandths of the network) are not counted.
    """

    train_images: int
    size: int
    passes: float = 0.0
    validation_passes: float = 0.0

    def add(self, images: int, size: int, *, backward: bool) -> None:
        """Count passes of ``images`` at ``size`` pixels a side."""
        self.passes += images * (size / self.size) ** 2 * (FORWARD + (BACKWARD if backward else 0.0))

    def add_validation(self, images: int, size: int) -> None:
        """Count forward passes spent on choosing the best epoch."""
        self.validation_passes += images * (size / self.size) ** 2 * FORWARD

    @property
    def epochs(self) -> float:
        """The price of training and validating together, in full epochs."""
        whole = self.train_images * (FORWARD + BACKWARD)
        return (self.passes + self.validation_passes) / whole


@dataclass
class Stopwatch:
    """Seconds by kind of work."""

    seconds: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def measure(self, kind: str) -> Iterator[None]:
        """Add the block's wall-clock seconds to ``kind``."""
        start = time.perf_counter()
        try:
            yield
        finally:
            self.add(kind, time.perf_counter() - start)

    def add(self, kind: str, seconds: float) -> None:
        """Add seconds measured elsewhere, such as in a worker process."""
        self.seconds[kind] = self.seconds.get(kind, 0.0) + seconds
