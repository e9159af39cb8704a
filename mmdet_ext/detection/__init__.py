"""Components for MMDetection, and the only part of the package that imports it.

Importing it makes the rules of `mmdet_ext.detection.suppression` types of mmdet's option ``nms``.
"""

from mmdet_ext.detection.suppression import install

install()
