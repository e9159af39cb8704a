"""Open-set evaluation: verification and identification."""

from mmdet_ext.recognition.metrics.identification import FaceIdentificationMetric
from mmdet_ext.recognition.metrics.verification import FaceVerificationMetric

__all__ = ['FaceIdentificationMetric', 'FaceVerificationMetric']
