"""Detectors and face recognisers in files that tools/deploy/export.py wrote, run without torch.

The package needs NumPy, OpenCV and one runtime: onnxruntime (``.onnx``), OpenVINO (``.xml``, or
``.onnx``) or ncnn (``.param``). It imports neither torch nor OpenMMLab. All that the images and the
results need stands in the model file: classes, size, means, and the options of the suppression.

>>> from mmdet_ext.deploy import Detector                     # doctest: +SKIP
>>> detector = Detector('atss.onnx')                          # doctest: +SKIP
>>> detector(['street.jpg'])[0].scores                        # doctest: +SKIP
"""

from mmdet_ext.deploy.detections import Detections
from mmdet_ext.deploy.detector import Detector
from mmdet_ext.deploy.errors import DeployError, ImageError, ModelFileError
from mmdet_ext.deploy.face import FaceRecogniser

__all__ = [
    'DeployError',
    'Detections',
    'Detector',
    'FaceRecogniser',
    'ImageError',
    'ModelFileError',
]
