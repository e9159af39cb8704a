"""ONNX files of InsightFace as embedders, with a stated preparation of the images."""

from __future__ import annotations

from collections.abc import Sequence
from os import PathLike
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from mmdet_ext.deploy.errors import ModelFileError
from mmdet_ext.deploy.processor import default_threads
from mmdet_ext.deploy.runtimes.base import load
from mmdet_ext.face.gallery import recogniser_id
from mmdet_ext.face.recognition.errors import RecognitionError


class InsightFaceEmbedder:
    r"""Recogniser in an ONNX file of InsightFace, such as ``w600k_r50.onnx``.

    The input is :math:`(p - \mathrm{mean}) / \mathrm{std}` of the pixels p, in the order that
    ``rgb`` states, as float32 (B, 3, H, W). InsightFace infers it from the names of the first
    nodes of the graph: 127.5 and 127.5, or 0 and 1 where the network itself begins with a
    subtraction and a product. Here it is what you state, and a part of the identifier.

    Args:
        path: the file. One input (B, 3, H, W), one output (B, D); B fixed or free.
        mean: subtracted from a pixel value, 0 to 255.
        std: divisor; some networks were trained with 128.
        rgb: whether the network takes red first.
        recogniser: identifier; None for that of the file's contents with the preparation.
        size: height and width, px, where the file leaves them free.
        threads: threads of a call; None for OMP_NUM_THREADS, or, without it, the runtime's number.

    Raises:
        ModelFileError: if the file is absent, no ONNX file, or of another form.
        RecognitionError: if an option is out of range.
        RuntimeAbsentError: if onnxruntime is not installed.
    """

    def __init__(
        self,
        path: str | PathLike[str],
        mean: float = 127.5,
        std: float = 127.5,
        rgb: bool = True,
        recogniser: str | None = None,
        size: tuple[int, int] | None = None,
        threads: int | None = None,
    ) -> None:
        if not np.isfinite(mean) or not (np.isfinite(std) and std > 0):
            raise RecognitionError(
                f'mean must be finite and std above 0, got mean={mean} and std={std}'
            )
        file = Path(path)
        if not file.is_file():
            raise ModelFileError(f'{file}: there is no such file')
        self.mean, self.std, self.rgb = float(mean), float(std), bool(rgb)
        self._session = _open(file, default_threads() if threads is None else threads)
        self._input, self._batch, self.size = _form(self._session, file, size)
        order = 'RGB' if self.rgb else 'BGR'
        self.recogniser = recogniser or (
            f'{recogniser_id([file])} {order} mean {self.mean:g} std {self.std:g}'
        )

    def embed_crops(self, crops: Sequence[np.ndarray], /) -> np.ndarray:
        """Compute embeddings (N, D) of length 1 of N crops, each resized to the network's size."""
        step = self._batch or max(1, len(crops))
        parts = [self._run(crops[start : start + step]) for start in range(0, len(crops), step)]
        if not parts:
            return np.zeros((0, 0), np.float32)
        rows = np.concatenate(parts)
        length = np.linalg.norm(rows, axis=1, keepdims=True)
        unit: np.ndarray = (rows / np.maximum(length, 1e-12)).astype(np.float32)
        return unit

    def _run(self, crops: Sequence[np.ndarray]) -> np.ndarray:
        blob = np.stack([self._prepared(crop) for crop in crops])
        if self._batch is not None and len(blob) < self._batch:  # filled up with its last crop
            blob = np.concatenate([blob, blob[-1:].repeat(self._batch - len(blob), 0)])
        (found,) = self._session.run(None, {self._input: blob})
        rows: np.ndarray = np.asarray(found, np.float32)[: len(crops)]
        if rows.ndim != 2 or len(rows) != len(crops):
            raise RecognitionError(
                f'the network gave shape {np.shape(found)} for {len(blob)} crops; an embedding of '
                'each was expected'
            )
        return rows

    def _prepared(self, crop: np.ndarray) -> np.ndarray:
        height, width = self.size
        if crop.shape[:2] != self.size:
            crop = cv2.resize(crop, (width, height), interpolation=cv2.INTER_LINEAR)
        pixels = crop[..., ::-1] if self.rgb else crop
        values = (pixels.astype(np.float32) - np.float32(self.mean)) / np.float32(self.std)
        return np.ascontiguousarray(values.transpose(2, 0, 1))


def _open(file: Path, threads: int | None) -> Any:
    ort = load('onnxruntime', 'onnxruntime')
    options = ort.SessionOptions()
    options.log_severity_level = 3
    if threads is not None:
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
    try:
        return ort.InferenceSession(str(file), options, providers=['CPUExecutionProvider'])
    except Exception as error:  # its own classes derive from Exception alone
        first = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise ModelFileError(
            f'{file} cannot be loaded by onnxruntime {ort.__version__}: it is truncated, no ONNX '
            f'file, or newer than the runtime ({first})'
        ) from error


def _form(
    session: Any, file: Path, size: tuple[int, int] | None
) -> tuple[str, int | None, tuple[int, int]]:
    """Return the name of the input, its fixed number of images or None, and height and width."""
    inputs, outputs = session.get_inputs(), session.get_outputs()
    shape = list(inputs[0].shape) if len(inputs) == 1 else []
    if len(shape) != 4 or shape[1] != 3 or len(outputs) != 1:
        forms = [each.shape for each in inputs], [each.shape for each in outputs]
        raise ModelFileError(
            f'{file} has inputs {forms[0]} and outputs {forms[1]}, but a recogniser of InsightFace '
            'has one input (B, 3, H, W) and one output (B, D). A detector of InsightFace is no '
            'recogniser'
        )
    batch = shape[0] if isinstance(shape[0], int) else None
    fixed = [side if isinstance(side, int) else None for side in shape[2:]]
    if size is None:
        if None in fixed:
            raise ModelFileError(f'{file} leaves height and width free: give size=(112, 112)')
        size = int(shape[2]), int(shape[3])
    if any(own not in (None, given) for own, given in zip(fixed, size, strict=True)):
        raise ModelFileError(f'{file} takes {shape[2]} x {shape[3]} px, but size is {size}')
    return inputs[0].name, batch, size
