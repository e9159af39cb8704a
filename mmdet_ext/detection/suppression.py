"""Suppression rules for the option ``nms`` of mmdet's heads.

``batched_nms`` of mmcv, which every dense head and RoI head calls, evaluates the text of
``nms['type']`` among the names of its module. `install` adds the name ``mmdet_ext`` to these, so
that a config can say::

    model = dict(test_cfg=dict(nms=dict(type='mmdet_ext.soft_nms', iou_threshold=0.5)))

Nothing changes for other configs. Importing ``mmdet_ext.detection`` installs the name, which any
detector with a type of this package does. A config of stock types alone imports it::

    custom_imports = dict(imports=['mmdet_ext.detection'], allow_failed_imports=False)

mmcv calls a rule once, with the classes shifted apart, below ``split_thr`` boxes, and from there on
once per class. That is an option of ``nms``: 10,000 for mmcv's rules, whose time grows with the
square of the boxes in a call, and no limit for ours, whose memory grows with the boxes alone.
"""

from __future__ import annotations

import difflib
import functools
import inspect
import sys
from collections.abc import Callable
from importlib import import_module
from types import FrameType
from typing import Any

from torch import Tensor

from mmdet_ext.functional.boxes.suppression import (
    SoftNMSMethod,
    batched_diou_nms,
    batched_soft_nms,
)

__all__ = ['Kept', 'Names', 'diou_nms', 'install', 'soft_nms']

#: Boxes with scores (K, 5), best first, and their indices (K,).
Kept = tuple[Tensor, Tensor]


def _with_known_options(rule: Callable[..., Kept]) -> Callable[..., Kept]:
    """Make a rule refuse an unknown option with its name, the nearest name and all names."""
    options = list(inspect.signature(rule).parameters)[2:]

    @functools.wraps(rule)
    def checked(boxes: Tensor, scores: Tensor, *given: Any, **named: Any) -> Kept:
        for name in named:
            if name not in options:
                close = difflib.get_close_matches(name, options, n=1)
                hint = f'; did you mean {close[0]!r}?' if close else '.'
                raise TypeError(
                    f'nms of type mmdet_ext.{rule.__name__} has no option {name!r}{hint} '
                    f'Its options: {", ".join(options)}'
                )
        return rule(boxes, scores, *given, **named)

    return checked


@_with_known_options
def soft_nms(
    boxes: Tensor,
    scores: Tensor,
    iou_threshold: float = 0.3,
    sigma: float = 0.5,
    min_score: float = 1e-3,
    method: SoftNMSMethod = 'linear',
    offset: int = 0,
    max_num: int = -1,
) -> Kept:
    """Lower the scores of boxes that overlap a better one, as mmcv's ``soft_nms``, on any device.

    Args:
        boxes: (N, 4) corners, px.
        scores: (N,).
        iou_threshold: as in `batched_soft_nms`, and so all options up to ``offset``.
        sigma: width of the Gaussian.
        min_score: score below which a box is dropped.
        method: ``linear``, ``gaussian`` or ``naive``.
        offset: 0 or 1 px.
        max_num: number of boxes to keep; -1 or 0 for all.
    """
    dets, keep = batched_soft_nms(
        boxes, scores, None, iou_threshold, sigma, min_score, method, offset
    )
    return _best(dets, keep, scores, max_num)


@_with_known_options
def diou_nms(boxes: Tensor, scores: Tensor, iou_threshold: float = 0.5, max_num: int = -1) -> Kept:
    """Remove boxes that overlap a better one whose centre is near: see `batched_diou_nms`.

    Args:
        boxes: (N, 4) corners, px.
        scores: (N,).
        iou_threshold: largest IoU, less the distance of the centres, that is kept.
        max_num: number of boxes to keep; -1 or 0 for all.
    """
    dets, keep = batched_diou_nms(boxes, scores, None, iou_threshold)
    return _best(dets, keep, scores, max_num)


def _best(dets: Tensor, keep: Tensor, scores: Tensor, max_num: int) -> Kept:
    """Return the first boxes, in the precision of the scores, which ``batched_nms`` expects."""
    if max_num > 0:
        dets, keep = dets[:max_num], keep[:max_num]
    return dets.to(scores.dtype), keep


class Names:
    """The name ``mmdet_ext`` in the text of a type of ``nms``.

    It has the rules, and, so that full paths lead to them too, all that the package has.
    """

    _rules = {'soft_nms': soft_nms, 'diou_nms': diou_nms}

    def __getattr__(self, name: str) -> Any:
        if name in self._rules:
            _set_no_limit(sys._getframe(1))
            return self._rules[name]
        if hasattr(sys.modules['mmdet_ext'], name):
            return getattr(sys.modules['mmdet_ext'], name)
        if name == 'weighted_box_fusion':
            raise AttributeError(
                'nms cannot be of type mmdet_ext.weighted_box_fusion: mmcv takes indices of boxes '
                'from a rule, and a fused box is none of them. Call '
                'mmdet_ext.functional.boxes.weighted_box_fusion on the results'
            )
        close = difflib.get_close_matches(name, self._rules, n=1)
        hint = f'; did you mean {close[0]!r}?' if close else '.'
        raise AttributeError(
            f'there is no nms of type mmdet_ext.{name}{hint} There are: {", ".join(self._rules)}'
        )


def _set_no_limit(caller: FrameType) -> None:
    """Set ``split_thr`` in the options that ``batched_nms`` is about to read, unless a config does.

    mmcv evaluates the text, takes the limit from its copy of the options, which is a local
    variable, and only then calls the rule, perhaps with the boxes of one class. A rule is asked for
    nothing in between, and mmdet's heads hold ``batched_nms`` by name, so that a wrapper would have
    to replace it in each of their modules. If another release names the variable otherwise, the
    limit stays, which costs time alone.
    """
    options = caller.f_locals.get('nms_cfg_')
    if isinstance(options, dict):
        options.setdefault('split_thr', sys.maxsize)


def install() -> None:
    """Make ``mmdet_ext.RULE`` a type of ``nms``; without mmcv's operators, do nothing."""
    try:
        module = import_module('mmcv.ops.nms')
    except ImportError:
        return
    vars(module)['mmdet_ext'] = Names()
