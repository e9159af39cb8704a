"""Data sets of faces (and digits) for training and for open-set evaluation."""

from mmdet_ext.recognition.datasets.digits import DigitsDataset
from mmdet_ext.recognition.datasets.folder import FaceFolderDataset
from mmdet_ext.recognition.datasets.pairs import FacePairsDataset
from mmdet_ext.recognition.datasets.records import FaceRecordDataset

__all__ = ['DigitsDataset', 'FaceFolderDataset', 'FacePairsDataset', 'FaceRecordDataset']
