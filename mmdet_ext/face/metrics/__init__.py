"""Metrics of open-set evaluation: verification and identification."""

from mmdet_ext.face.metrics.identification import FaceIdentificationMetric
from mmdet_ext.face.metrics.verification import FaceVerificationMetric

__all__ = ['FaceIdentificationMetric', 'FaceVerificationMetric']
