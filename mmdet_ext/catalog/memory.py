"""Memory that a computation needs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch


def peak_bytes(work: Callable[[], Any]) -> int:
    """Measure the peak of CPU memory that ``work`` allocates, in bytes.

    Allocations and frees recorded by torch's profiler are added in their order; memory that was
    allocated before does not count.
    """
    with torch.profiler.profile(
        activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True, acc_events=True
    ) as profiler:
        work()
    kineto = profiler.profiler
    assert kineto is not None
    events = [event for event in kineto.kineto_results.events() if event.name() == '[memory]']
    held = peak = 0
    for event in sorted(events, key=lambda event: event.start_ns()):
        held += event.nbytes()
        peak = max(peak, held)
    return peak
