"""Face recogniser of a config and a checkpoint, written for a runtime."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from mmengine.config import Config
from mmengine.registry import MODELS, init_default_scope
from mmengine.structures import BaseDataElement
from torch import Tensor, nn

from mmdet_ext.compat.checkpoint import load_from_local
from mmdet_ext.deploy.face import FaceRecogniser
from mmdet_ext.deploy.images import prepare, read_image
from mmdet_ext.deploy.metadata import InputInfo, ModelInfo
from mmdet_ext.engine.configs import test_pipeline
from mmdet_ext.export.folding import fold_network, noise_like
from mmdet_ext.export.made_of import made_of
from mmdet_ext.export.onnx_file import LEAST_OPSET, ExportError, to_onnx
from mmdet_ext.export.sources import interpolation_of, load_all
from mmdet_ext.export.targets import write_ncnn, write_network

WITHOUT_EFFECT = ('LoadFace', 'LoadImageFromFile', 'PackInputs', 'AlignFace')
#: Largest difference of a number of an embedding of length 1 that counts as equal.
TOLERANCE = 1e-4


class FaceNetwork(nn.Module):
    """Network from normalised faces to embeddings of any length.

    Args:
        model: mmpretrain's ImageClassifier with our `MarginHead`. It is copied, and the copy put
            into evaluation mode.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model: Any = copy.deepcopy(model).eval()
        for weight in self.model.parameters():
            weight.requires_grad_(False)

    def forward(self, images: Tensor) -> Tensor:
        """Compute embeddings (B, D) of faces (B, 3, H, W)."""
        embedding: Tensor = self.model.head.pre_logits(self.model.extract_feat(images))
        return embedding


def load_recogniser(config: Config, checkpoint: Path) -> nn.Module:
    """Build the recogniser of a config with the weights of a checkpoint.

    Raises:
        ExportError: if weights are missing or of another shape, or the model is no recogniser.
        OSError: if the file cannot be read.
    """
    init_default_scope(config.get('default_scope', 'mmpretrain'))
    content = load_from_local(str(checkpoint), 'cpu')
    weights = content.get('state_dict', content)
    model = MODELS.build(config.model)
    if not hasattr(getattr(model, 'head', None), 'pre_logits'):
        raise ExportError(f'{type(model).__name__} has no head with an embedding (MarginHead)')
    return load_all(model, weights, checkpoint)


def export_recogniser(
    model: nn.Module,
    config: Config,
    path: Path,
    target: Literal['onnx', 'openvino', 'ncnn'] = 'onnx',
    batch: int | Literal['dynamic'] = 1,
    opset: int = LEAST_OPSET,
    sources: Mapping[str, str] | None = None,
    fold: bool = False,
) -> ModelInfo:
    """Write a recogniser for a runtime.

    Args:
        model: ImageClassifier with a `MarginHead`.
        config: its config.
        path: file to write, ``.onnx``, ``.xml`` or ``.param``.
        target: runtime.
        batch: faces per call; ``dynamic`` for any number.
        opset: version of ONNX's operators.
        sources: names and files that it is made of.
        fold: whether branches are merged and batch norms folded before the network is traced.

    Returns:
        ModelInfo: description that the file carries. With ``fold`` its ``made_of`` has 'folded',
        the line of `mmdet_ext.export.folding.Folding.text`.

    Raises:
        ExportError: if the model or the config cannot be exported. Nothing is written.
    """
    if target == 'ncnn' and batch != 1:
        raise ExportError(f'ncnn runs one image at a time, got batch={batch}: leave it 1')
    inputs = read_input(config, model, None if batch == 'dynamic' else batch)
    assert inputs.size is not None
    network = FaceNetwork(model)
    example = torch.zeros(inputs.batch or 2, 3, *inputs.size)
    sources = dict(sources or {})
    if fold:
        sources['folded'] = fold_network(network.eval(), noise_like(example)).text()
    info = ModelInfo(
        task='face',
        input=inputs,
        outputs='embedding',
        mirror=_mirror(model),
        made_of=made_of(sources),
    )
    if target == 'ncnn':
        return write_ncnn(network, example, info, path)
    axes = {0: torch.export.Dim('batch')} if batch == 'dynamic' else {}
    proto = to_onnx(network, {'images': example}, ('embedding',), {'images': axes}, opset)
    return write_network(proto, info, path, target)


def read_input(config: Config, model: Any, batch: int | None) -> InputInfo:
    """Read how a config prepares faces.

    Raises:
        ExportError: if the pipeline has a transform that ``mmdet_ext.deploy`` does not have, or
            says no size.
    """
    scale, interpolation = None, 'linear'
    for transform in test_pipeline(config):
        kind = str(transform['type']).rpartition('.')[2]
        if kind == 'Resize':
            scale = transform['scale']
            interpolation = interpolation_of(transform)
            if transform.get('keep_ratio', False):
                raise ExportError('Resize of the test pipeline keeps the ratio of faces')
        elif kind not in WITHOUT_EFFECT:
            raise ExportError(
                f'the test pipeline has {kind}, which mmdet_ext.deploy does not have: it resizes '
                'aligned faces (Resize)'
            )
    own = getattr(model.backbone, 'input_size', None)
    if scale is None and own is not None:
        height, width = (own, own) if isinstance(own, int) else own
        scale = (width, height)
    if scale is None:
        raise ExportError('neither the test pipeline (Resize) nor the backbone says a size')
    width, height = (scale, scale) if isinstance(scale, int) else scale
    steps = model.data_preprocessor
    return InputInfo(
        scale=(int(width), int(height)),
        keep_ratio=False,
        interpolation=interpolation,
        size=(int(height), int(width)),
        batch=batch,
        mean=_three(steps.mean),
        std=_three(steps.std),
        to_rgb=bool(steps.to_rgb),
    )


@torch.no_grad()
def worst_difference(model: nn.Module, recogniser: FaceRecogniser, images: Sequence[Path]) -> float:
    """Return the largest difference of a number of an embedding between torch and a file.

    torch gets the images as the file prepares them; embeddings have the length 1.

    Args:
        model: in evaluation mode.
        recogniser: the file.
        images: files.
    """
    worst = 0.0
    info, preprocessor = recogniser.info.input, model.data_preprocessor
    plain = dataclasses.replace(info, mean=(0.0,) * 3, std=(1.0,) * 3, to_rgb=False)
    for file in images:
        pixels = torch.from_numpy(prepare(read_image(file), plain).pixels)
        batch = preprocessor(dict(inputs=[pixels]), False)  # type: ignore[operator]
        features = model.extract_feat(batch['inputs'])  # type: ignore[operator]
        samples = model.head.predict(features, [BaseDataElement()])  # type: ignore
        expected = samples[0].embedding.numpy()
        expected = expected / np.linalg.norm(expected)
        worst = max(worst, float(np.abs(expected - recogniser.embed([file])[0]).max()))
    return worst


def _mirror(model: Any) -> str:
    if not getattr(model.data_preprocessor, 'flip_at_test', False):
        return 'none'
    return model.head.flip_fusion or 'sum'


def _three(values: Tensor) -> tuple[float, ...]:
    numbers = values.flatten().tolist()
    return tuple(map(float, numbers if len(numbers) == 3 else numbers * 3))
