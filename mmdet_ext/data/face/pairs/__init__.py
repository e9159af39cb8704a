"""Pairs of faces for verification: LFW's lists, tables, and InsightFace's ``.bin``."""

from mmdet_ext.data.face.pairs.bin_file import read_bin_pairs
from mmdet_ext.data.face.pairs.collected import Absent, FacePairs, PairsError, consecutive_folds
from mmdet_ext.data.face.pairs.text_lists import read_lfw_pairs, read_table_pairs

__all__ = [
    'Absent',
    'FacePairs',
    'PairsError',
    'consecutive_folds',
    'read_bin_pairs',
    'read_lfw_pairs',
    'read_table_pairs',
]
