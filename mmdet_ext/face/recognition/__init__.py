"""From an image to names: faces found, aligned, embedded, and searched for in a gallery.

>>> import numpy as np
>>> from mmdet_ext.face.recognition import FaceRecognizer
>>> class Mean:                            # any object with these three members is an embedder
...     recogniser, size = 'mean colour', (8, 8)
...     def embed_crops(self, crops):
...         return np.array([crop.mean((0, 1)) for crop in crops])
>>> blue, green = np.zeros((2, 8, 8, 3), np.uint8)
>>> blue[..., 0] = green[..., 1] = 200
>>> people = FaceRecognizer(Mean())
>>> people.enrol('ann', [blue]).images
('image 0',)
>>> [[face.name for face in faces] for faces in people.recognize([blue, green])]
[['ann'], ['unknown']]
"""

from mmdet_ext.face.recognition.crops import crop_faces
from mmdet_ext.face.recognition.detectors import ConfigDetector, FileDetector
from mmdet_ext.face.recognition.embedders import ConfigCropEmbedder, FileCropEmbedder
from mmdet_ext.face.recognition.errors import RecognitionError
from mmdet_ext.face.recognition.insightface_onnx import InsightFaceEmbedder
from mmdet_ext.face.recognition.recognizer import FaceRecognizer
from mmdet_ext.face.recognition.results import (
    CropEmbedder,
    DetectedFace,
    Enrolled,
    Face,
    FaceDetector,
    Recognition,
    Refused,
)

__all__ = [
    'ConfigCropEmbedder',
    'ConfigDetector',
    'CropEmbedder',
    'DetectedFace',
    'Enrolled',
    'Face',
    'FaceDetector',
    'FaceRecognizer',
    'FileCropEmbedder',
    'FileDetector',
    'InsightFaceEmbedder',
    'Recognition',
    'RecognitionError',
    'Refused',
    'crop_faces',
]
