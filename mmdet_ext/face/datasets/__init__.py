"""Data sets of faces (and digits) for training and for open-set evaluation."""

from mmdet_ext.face.datasets.digits import DigitsDataset
from mmdet_ext.face.datasets.folder import FaceFolderDataset
from mmdet_ext.face.datasets.pairs import FacePairsDataset
from mmdet_ext.face.datasets.records import FaceRecordDataset

__all__ = ['DigitsDataset', 'FaceFolderDataset', 'FacePairsDataset', 'FaceRecordDataset']
