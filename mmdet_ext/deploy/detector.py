"""Detector in a model file."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from os import PathLike

import numpy as np

from mmdet_ext.deploy.detections import Detections
from mmdet_ext.deploy.errors import DeployError, ModelFileError
from mmdet_ext.deploy.images import Image, Prepared, prepare, read_image, stack
from mmdet_ext.deploy.metadata import ModelInfo
from mmdet_ext.deploy.runtimes import open_model
from mmdet_ext.deploy.selection import Priors, Selected, select, to_image
from mmdet_ext.deploy.suppression import checked_options


class Detector:
    """Detector that ``tools/deploy/export.py`` wrote, on NumPy, OpenCV and one runtime.

    Images are resized, padded and normalised as in training, and boxes are returned in px of the
    images. Classes, sizes and thresholds stand in the file.

    Args:
        path: the ``.onnx``, ``.xml`` or ``.param`` file.
        runtime: ``onnxruntime``, ``openvino`` or ``ncnn``; None for the first that fits the file.
        threads: threads of a call; None for OMP_NUM_THREADS, or, without it, the runtime's number.
        score: least score of what is returned, beside the file's own threshold.

    Attributes:
        info: description in the file.
        classes: names of the classes.

    Raises:
        ModelFileError: if the file is absent, truncated, or no detector of this package.
        RuntimeAbsentError: if no runtime for it is installed.
    """

    def __init__(
        self,
        path: str | PathLike[str],
        runtime: str | None = None,
        threads: int | None = None,
        score: float = 0.0,
    ) -> None:
        if not 0 <= score <= 1:
            raise DeployError(f'score must be in [0, 1], got {score}')
        self.score = score
        self.runtime = open_model(path, runtime, threads)
        self.info: ModelInfo = self.runtime.info
        if self.info.task != 'detection':
            raise ModelFileError(
                f'{path} holds no detector, but a network for the task {self.info.task!r}: open '
                'it by FaceRecogniser'
            )
        self.classes = self.info.classes
        options = checked_options(self.info.selection.nms)
        self._selection = replace(self.info.selection, nms=options)

    def __call__(self, images: Sequence[Image], batch: int | None = None) -> list[Detections]:
        """Detect objects.

        Args:
            images: paths, or pixels (H, W, 3) uint8, BGR.
            batch: images per call of the network; None for the file's fixed number, or else 1.
                Images of a batch are padded to the largest of them, as in mmdet.

        Returns:
            list[Detections]: one per image.

        Raises:
            ImageError: if an image cannot be read or resized.
        """
        if isinstance(images, (str, PathLike)) or (
            isinstance(images, np.ndarray) and images.ndim == 3
        ):
            raise DeployError('images must be a list: write detector([image])[0] for one image')
        found: list[Detections] = []
        for start, count in self._batches(len(images), batch):
            prepared = [
                prepare(read_image(image), self.info.input, _name(image, place))
                for place, image in enumerate(images[start : start + count], start)
            ]
            found += self._detect(prepared)
        return found

    def run(self, prepared: Sequence[Prepared]) -> dict[str, np.ndarray]:
        """Run the network on prepared images, one call for all, and return its outputs."""
        parts = list(prepared)
        fixed = self.info.input.batch
        if fixed is not None:  # the last batch is filled up with its last image
            parts += [parts[-1]] * (fixed - len(parts))
        sizes = np.array([each.size for each in parts], np.float32)
        feeds = {'images': stack(parts, self.info.input), 'sizes': sizes}
        return {
            name: values if name == 'levels' else values[: len(prepared)]
            for name, values in self.runtime.run(feeds).items()
        }

    def _batches(self, count: int, batch: int | None) -> Iterator[tuple[int, int]]:
        fixed = self.info.input.batch
        size = batch or fixed or 1
        if size < 1 or (fixed is not None and size > fixed):
            raise DeployError(
                f'batch={batch}, but the network takes {fixed} images: export one with '
                '--batch dynamic'
            )
        for start in range(0, count, size):
            yield start, min(size, count - start)

    def _detect(self, prepared: list[Prepared]) -> list[Detections]:
        outputs = self.run(prepared)
        return [
            Detections(found.boxes, found.scores, found.labels, self.classes).above(self.score)
            for found in (self._select(outputs, place, each) for place, each in enumerate(prepared))
        ]

    def _select(self, outputs: dict[str, np.ndarray], place: int, image: Prepared) -> Selected:
        if self.info.outputs == 'detections':
            scores = outputs['scores'][place]
            real = scores >= 0  # rows without a detection have the score -1
            boxes = to_image(outputs['boxes'][place][real], None, image.factors)
            return Selected(boxes, scores[real], outputs['labels'][place][real].astype(np.int64))
        sizes = self.info.level_sizes
        levels: np.ndarray | None
        if sizes is None:
            levels = outputs['levels'].astype(np.int64)
        else:
            levels = np.repeat(np.arange(len(sizes)), sizes) if len(sizes) > 1 else None
        factors = outputs['factors'][place].reshape(-1) if self.info.has_factors else None
        priors = Priors(outputs['boxes'][place], outputs['scores'][place], factors, levels)
        return select(priors, image.size, image.factors, self._selection)


def _name(image: Image, place: int) -> str:
    return f'image {place}' if isinstance(image, np.ndarray) else str(image)
