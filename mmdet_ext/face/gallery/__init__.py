"""Galleries of enrolled people, searched by embeddings: NumPy alone, and faiss for large ones.

>>> import numpy as np
>>> from mmdet_ext.face.gallery import FaceGallery
>>> gallery = FaceGallery('my recogniser')
>>> gallery.enrol(['ann', 'bob'], np.eye(2))
>>> [found.name for found in gallery.search([[0.9, 0.1], [-1.0, -1.0]], threshold=0.5)]
['ann', 'unknown']
"""

from mmdet_ext.face.gallery.errors import FaissAbsentError, GalleryError
from mmdet_ext.face.gallery.figures import OpenSetFigures, open_set_figures
from mmdet_ext.face.gallery.gallery import FaceGallery
from mmdet_ext.face.gallery.identifier import recogniser_id
from mmdet_ext.face.gallery.results import UNKNOWN, Candidate, Found, Recall

__all__ = [
    'UNKNOWN',
    'Candidate',
    'FaceGallery',
    'FaissAbsentError',
    'Found',
    'GalleryError',
    'OpenSetFigures',
    'Recall',
    'open_set_figures',
    'recogniser_id',
]
