"""Report of weights that do not fit, where MMEngine loads them."""

from __future__ import annotations

import logging
from collections import OrderedDict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import mmengine.runner.checkpoint as host
import pytest
import torch
from mmengine.logging import MMLogger
from mmengine.model import BaseModel
from mmengine.runner import Runner
from torch import nn

import mmdet_ext.compat
from mmdet_ext.compat.load_report import install_load_report


class Net(BaseModel):
    """Network of a backbone and a head, whose backbone converts a name of old files."""

    def __init__(self, classes: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.backbone = Backbone()
        self.head = nn.Linear(4, classes)

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Return nothing that is learnt."""
        return {}


class Backbone(nn.Linear):
    """Layer that was named ``old`` in files."""

    def __init__(self) -> None:
        super().__init__(3, 4)

    def _load_from_state_dict(self, weights: Any, prefix: str, *args: Any) -> None:
        for name in ('weight', 'bias'):
            if f'{prefix}old_{name}' in weights:
                weights[prefix + name] = weights.pop(f'{prefix}old_{name}')
        super()._load_from_state_dict(weights, prefix, *args)


@pytest.fixture
def logged() -> Iterator[list[str]]:
    """Return the reports that MMEngine's current logger gets."""
    lines: list[str] = []

    def keep(record: logging.LogRecord) -> bool:
        if record.getMessage().startswith('weights of another layout'):
            lines.append(record.getMessage())
        return True

    logger = MMLogger.get_current_instance()
    logger.addFilter(keep)
    yield lines
    logger.removeFilter(keep)


def saved(path: Path, classes: int) -> Path:
    """Write the weights of a network whose backbone has other names."""
    weights = Net(classes).state_dict()
    torch.save(
        {'state_dict': {k.replace('backbone', 'trunk.stem'): v for k, v in weights.items()}}, path
    )
    return path


EXPECTED = [
    'weights of another layout: 0 matched, 2 missing in the file, 2 unexpected, 2 of another shape '
    "(the model's 4)",
    "  backbone.*: 2 missing in the file (all of the model's)",
    '  trunk.stem.*: 2 unexpected, not in the model',
    '  head.bias: (10,) in the file, (3,) in the model',
    '  head.weight: (10, 4) in the file, (3, 4) in the model',
]


def test_a_run_that_loads_another_layout_reports_groups_and_numbers(tmp_path: Path) -> None:
    file, folder = saved(tmp_path / 'other.pth', 10), tmp_path / 'run'
    runner = Runner(
        Net(3), work_dir=str(folder), load_from=str(file), experiment_name=tmp_path.name
    )
    runner.load_or_resume()
    lines = next(folder.rglob('*.log')).read_text().splitlines()
    begin = next(i for i, line in enumerate(lines) if line.endswith(EXPECTED[0]))
    assert sorted(lines[begin + 1 : begin + 5]) == sorted(EXPECTED[1:])


def test_weights_of_an_init_cfg_are_reported_too(tmp_path: Path, logged: list[str]) -> None:
    file = saved(tmp_path / 'other.pth', 3)
    Net(3, init_cfg=dict(type='Pretrained', checkpoint=str(file))).init_weights()
    assert len(logged) == 1
    assert '2 matched, 2 missing in the file, 2 unexpected, 0 of another shape' in logged[0]


def test_weights_that_fit_are_not_reported(logged: list[str]) -> None:
    weights = Net(3).state_dict()
    host.load_state_dict(Net(3), weights, logger='current')
    # The layer converts these names.
    old = OrderedDict((k.replace('backbone.', 'backbone.old_'), v) for k, v in weights.items())
    host.load_state_dict(Net(3), old, logger='current')
    assert logged == []


def test_a_strict_loader_raises_and_reports(logged: list[str]) -> None:
    with pytest.raises(RuntimeError, match='size mismatch for head.weight'):
        host.load_state_dict(Net(3), Net(10).state_dict(), strict=True, logger='current')
    assert logged[0].startswith('weights of another layout: 2 matched, 0 missing')
    assert not Net(3)._load_state_dict_post_hooks


def test_the_report_is_installed_once() -> None:
    before = host.load_state_dict
    install_load_report()
    mmdet_ext.compat.install_load_report()
    assert host.load_state_dict is before
