"""Detector of YOLOv4, which knows the order of its layers in Darknet's file of weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from mmdet.models.detectors import SingleStageDetector

from mmdet_ext.compat.darknet import DarknetLayer, darknet_layers, load_darknet, save_darknet
from mmdet_ext.detection.backbones.csp_darknet53 import CSPDarknet53
from mmdet_ext.detection.heads.yolo.yolov3 import YOLOV3Head
from mmdet_ext.detection.necks.yolov4 import YOLOV4Neck
from mmdet_ext.registry import MODELS


@MODELS.register_module()
class YOLOV4(SingleStageDetector):  # type: ignore[misc]
    """YOLOv4: `CSPDarknet53`, `YOLOV4Neck` and `YOLOV3Head`, in mmdet's single-stage detector.

    The published file ``yolov4.weights`` has no names. Its numbers stand in the order in which
    Darknet's configuration lists the layers: the backbone; the neck up to the finest map; then for
    each map, from fine to coarse, the two convolutions of the head, and the step of the neck to
    the next map. `load_darknet` reads such a file, and `layers` lists the convolutions in this
    order. A converted file is a usual checkpoint, by the names of mmdet's modules.

    Args:
        *args: as mmdet's ``SingleStageDetector`` takes them: ``backbone``, ``neck``, ``bbox_head``,
            ``train_cfg``, ``test_cfg``, ``data_preprocessor`` and ``init_cfg``.
        **kwargs: the same by name.

    Raises:
        ValueError: if the backbone, neck or head is of another type, or they do not fit.

    References:
        Bochkovskiy et al., YOLOv4: Optimal Speed and Accuracy of Object Detection, 2020.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        for name, kind in (
            ('backbone', CSPDarknet53),
            ('neck', YOLOV4Neck),
            ('bbox_head', YOLOV3Head),
        ):
            part = getattr(self, name, None)
            if not isinstance(part, kind):
                raise ValueError(
                    f'{name} must be mmdet_ext.{kind.__name__}, got {type(part).__name__}. For '
                    "other parts use mmdet's YOLOV3 as the detector, which takes any"
                )
        given, wanted = list(self.bbox_head.in_channels), self._head_channels()
        if given != wanted:
            raise ValueError(
                f"bbox_head.in_channels must be {wanted}, half of the neck's "
                f'in_channels={list(self.neck.in_channels)}, the coarsest map first, got {given}'
            )

    def layers(self) -> list[DarknetLayer]:
        """List the convolutions, each with its batch norm or None, in the order of the file."""
        found = darknet_layers(self.backbone)
        for part in (self.neck.before_pooling, self.neck.after_pooling, self.neck.ups):
            found += darknet_layers(part)
        finest = len(self.neck.in_channels) - 1
        for level in reversed(range(finest + 1)):
            if level < finest:
                found += darknet_layers(self.neck.downs[finest - level - 1])
            found += darknet_layers(self.bbox_head.convs_bridge[level])
            found += darknet_layers(self.bbox_head.convs_pred[level])
        return found

    def load_darknet(self, path: str | Path) -> int:
        """Read the weights of all layers from a file of Darknet.

        Args:
            path: such as ``yolov4.weights``, of a network with the same number of classes.

        Returns:
            int: number of images seen in training.

        Raises:
            mmdet_ext.compat.weights.ConversionError: if the file has another length.
        """
        return load_darknet(Path(path), self.layers())

    def save_darknet(self, path: str | Path, seen: int = 0) -> None:
        """Write the weights of all layers as a file of Darknet.

        Args:
            path: the file.
            seen: number of images seen in training.
        """
        save_darknet(Path(path), self.layers(), seen)

    def _head_channels(self) -> list[int]:
        return [channels // 2 for channels in reversed(self.neck.in_channels)]
