"""Face recogniser in a model file."""

from __future__ import annotations

from collections.abc import Sequence
from os import PathLike

import numpy as np

from mmdet_ext.deploy.errors import ModelFileError
from mmdet_ext.deploy.images import Image, prepare, read_image, stack
from mmdet_ext.deploy.metadata import ModelInfo
from mmdet_ext.deploy.runtimes import open_model


class FaceRecogniser:
    """Face recogniser that ``tools/deploy/export.py`` wrote: images to embeddings.

    Images are faces, aligned as in training; they are resized to the network's size. Mirror images
    are fused where the config of the training does so.

    Args:
        path: the ``.onnx``, ``.xml`` or ``.param`` file.
        runtime: ``onnxruntime``, ``openvino`` or ``ncnn``; None for the first that fits the file.
        threads: threads of a call; None for OMP_NUM_THREADS, or, without it, the runtime's number.

    Raises:
        ModelFileError: if the file is absent, truncated, or no face recogniser of this package.
        RuntimeAbsentError: if no runtime for it is installed.
    """

    def __init__(
        self, path: str | PathLike[str], runtime: str | None = None, threads: int | None = None
    ) -> None:
        self.runtime = open_model(path, runtime, threads)
        self.info: ModelInfo = self.runtime.info
        if self.info.task != 'face':
            raise ModelFileError(
                f'{path} holds no face recogniser, but a network for the task '
                f'{self.info.task!r}: open it by Detector'
            )

    def embed(self, images: Sequence[Image], batch: int | None = None) -> np.ndarray:
        """Compute embeddings.

        Args:
            images: paths, or pixels (H, W, 3) uint8, BGR, N of them.
            batch: images per call of the network; None for the file's fixed number, or else 1.

        Returns:
            ndarray: (N, D) float32 of length 1.

        Raises:
            ImageError: if an image cannot be read.
        """
        size = self.info.input.batch or batch or 1
        rows = [self._batch(images[start : start + size]) for start in range(0, len(images), size)]
        return np.concatenate(rows) if rows else np.zeros((0, 0), np.float32)

    def similarity(self, first: Sequence[Image], second: Sequence[Image]) -> np.ndarray:
        """Compute the cosines (N, M) of all pairs of two lists of images."""
        cosines: np.ndarray = self.embed(first) @ self.embed(second).T
        return cosines

    def _batch(self, images: Sequence[Image]) -> np.ndarray:
        prepared = [prepare(read_image(image), self.info.input) for image in images]
        fixed = self.info.input.batch
        if fixed is not None:
            prepared += [prepared[-1]] * (fixed - len(prepared))
        pixels = stack(prepared, self.info.input)
        found = self._run(pixels)[: len(images)]
        if self.info.mirror != 'none':
            other = self._run(np.ascontiguousarray(pixels[..., ::-1]))[: len(images)]
            fused = [found, other] if self.info.mirror == 'concat' else [found + other]
            found = np.concatenate(fused, 1)
        length = np.linalg.norm(found, axis=1, keepdims=True)
        unit: np.ndarray = (found / np.maximum(length, 1e-12)).astype(np.float32)
        return unit

    def _run(self, pixels: np.ndarray) -> np.ndarray:
        values = self.runtime.run({'images': pixels})['embedding']
        return values.reshape(len(pixels), -1)
