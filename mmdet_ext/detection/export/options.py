"""Options of an export, checked before anything is computed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from mmdet_ext.export.onnx_file import LEAST_OPSET, ExportError

Target = Literal['onnx', 'openvino', 'ncnn']
Place = Literal['inside', 'outside']


@dataclass(frozen=True)
class ExportOptions:
    """Options of an export.

    Args:
        target: runtime that reads the file.
        suppression: ``inside`` the network, or ``outside``, in the program.
        size: height and width of the input, px; ``None`` for the config's where all its images
            have one size, and for any size otherwise; ``dynamic`` for any size.
        batch: images per call; ``dynamic`` for any number.
        opset: version of ONNX's operators.
        fold: whether branches are merged and batch norms folded before the network is traced.

    Raises:
        ExportError: if the options do not fit each other or the target.
    """

    target: Target = 'onnx'
    suppression: Place = 'outside'
    size: tuple[int, int] | Literal['dynamic'] | None = None
    batch: int | Literal['dynamic'] = 1
    opset: int = LEAST_OPSET
    fold: bool = False

    def __post_init__(self) -> None:
        if self.batch != 'dynamic' and self.batch < 1:
            raise ExportError(f'batch must be at least 1, or dynamic, got {self.batch}')
        if isinstance(self.size, tuple) and min(self.size) < 1:
            raise ExportError(f'size must be above 0, got {self.size}')
        if self.target != 'ncnn':
            return
        if self.suppression == 'inside':
            raise ExportError(
                'ncnn has no suppression: pnnx reports success, and ncnn cannot load the file. '
                'Export with --suppression outside; mmdet_ext.deploy suppresses in the program'
            )
        if self.batch != 1:
            raise ExportError(f'ncnn runs one image at a time, got batch={self.batch}: leave it 1')
        if self.size == 'dynamic':
            raise ExportError(
                'ncnn answers any size with the number of rows that was traced: give --size '
                'HEIGHT WIDTH'
            )
