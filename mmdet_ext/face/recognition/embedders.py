"""Recognisers of this package that embed crops of faces: exported files and checkpoints."""

from __future__ import annotations

from collections.abc import Sequence
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np

from mmdet_ext.deploy.face import FaceRecogniser
from mmdet_ext.face.gallery import recogniser_id
from mmdet_ext.face.recognition.errors import RecognitionError


class FileCropEmbedder:
    """Recogniser in a file of ``tools/deploy/export.py``; it needs no torch.

    Args:
        path: the ``.onnx``, ``.xml`` or ``.param`` file.
        recogniser: identifier; None for that of the file's contents, as in
            ``tools/face/gallery.py``.
        runtime: as in `mmdet_ext.deploy.FaceRecogniser`.
        threads: as in `mmdet_ext.deploy.FaceRecogniser`.

    Raises:
        ModelFileError: if the file cannot be used.
    """

    def __init__(
        self,
        path: str | PathLike[str],
        recogniser: str | None = None,
        runtime: str | None = None,
        threads: int | None = None,
    ) -> None:
        self.model = FaceRecogniser(path, runtime, threads)
        weights = Path(path).with_suffix('.bin')
        files = [path, *([weights] if weights.is_file() else [])]
        self.recogniser = recogniser or recogniser_id(files)
        width, height = self.model.info.input.scale
        self.size: tuple[int, int] = self.model.info.input.size or (height, width)

    def embed_crops(self, crops: Sequence[np.ndarray], /) -> np.ndarray:
        """Compute embeddings (N, D) of length 1 of N crops, each resized to the network's size."""
        return self.model.embed(crops)


class ConfigCropEmbedder:
    """Recogniser of a config and a checkpoint, by its test pipeline without loading and alignment.

    Args:
        config: path, or what MMEngine read of it; see `ConfigEmbedder`.
        checkpoint: file of its weights.
        recogniser: identifier; None for that of the contents of both files, as in
            ``tools/face/gallery.py``.
        size: height and width of a crop, px; None for those of the pipeline or the backbone.

    Raises:
        RecognitionError: if neither the config nor ``size`` says a size, or no identifier is given
            for a config that is no file.
        ValueError, OSError: if the config or the weights cannot be used.
    """

    def __init__(
        self,
        config: Any,
        checkpoint: str | PathLike[str],
        recogniser: str | None = None,
        size: tuple[int, int] | None = None,
    ) -> None:
        from mmdet_ext.engine.configs import read_config
        from mmdet_ext.face.image_embedder import ConfigEmbedder

        file = Path(config) if isinstance(config, (str, PathLike)) else None
        if file is None and recogniser is None:
            raise RecognitionError('recogniser must be given where config is no file')
        read = config if file is None else read_config(file)
        whole = ConfigEmbedder(read, Path(checkpoint))
        self.recogniser = recogniser or recogniser_id([str(file), checkpoint])
        self.model = whole.model.eval()
        steps = whole.pipeline.transforms
        self._steps = [step for step in steps if type(step).__name__ not in _BEFORE_A_CROP]
        self.size = size or _size(steps, self.model)

    def embed_crops(self, crops: Sequence[np.ndarray], /) -> np.ndarray:
        """Compute embeddings (N, D) of N crops by the pipeline and the model."""
        from mmdet_ext.face.embeddings import embeddings_of

        rows: np.ndarray = embeddings_of(
            self.model, [self._prepared(crop) for crop in crops], range(len(crops))
        )[0]
        return rows

    def _prepared(self, crop: np.ndarray) -> Any:
        size = crop.shape[:2]
        data: Any = {'img': crop, 'img_shape': size, 'ori_shape': size}
        data |= {'img_path': 'a crop', 'gt_label': 0}
        for step in self._steps:
            data = step(data)
        return data


#: Transforms that a crop has behind it.
_BEFORE_A_CROP = ('LoadFace', 'LoadImageFromFile', 'AlignFace')


def _size(steps: Sequence[Any], model: Any) -> tuple[int, int]:
    """Return height and width of a crop: of the alignment, the resize or the backbone."""
    for kind, option in (('AlignFace', 'size'), ('Resize', 'scale')):
        for step in steps:
            found = getattr(step, option, None)
            if type(step).__name__ == kind and found is not None:
                width, height = (found, found) if isinstance(found, int) else found
                return int(height), int(width)
    own = getattr(model.backbone, 'input_size', None)
    if own is None:
        raise RecognitionError(
            'neither the test pipeline (AlignFace, Resize) nor the backbone says the size of a '
            'crop: give size=(height, width)'
        )
    height, width = (own, own) if isinstance(own, int) else own
    return int(height), int(width)
