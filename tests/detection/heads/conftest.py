"""Fixtures of the tests of dense heads."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
from mmengine.logging import MessageHub


@pytest.fixture
def epoch() -> Iterator[Callable[[int], None]]:
    """Set the epoch to 5, and return a function that sets another."""
    hub = MessageHub.get_current_instance()
    hub.update_info('epoch', 5)
    yield lambda number: hub.update_info('epoch', number)
    hub.update_info('epoch', 0)
