"""Fixture of the messages that metrics log."""

from __future__ import annotations

import pytest

from mmdet_ext.face.metrics import FaceVerificationMetric


@pytest.fixture
def logged(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Collect the messages that metrics log."""
    said: list[str] = []
    monkeypatch.setattr(FaceVerificationMetric, 'say', lambda self, text, *_: said.append(text))
    return said
