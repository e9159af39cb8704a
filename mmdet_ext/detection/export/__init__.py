"""Detectors in the form that runtimes other than torch run: decoding is a part of the network."""

from mmdet_ext.detection.export.decoding import Decoded, decode_maps
from mmdet_ext.detection.export.network import DetectorNetwork
from mmdet_ext.detection.export.options import ExportOptions
from mmdet_ext.detection.export.write import export_detector

__all__ = ['Decoded', 'DetectorNetwork', 'ExportOptions', 'decode_maps', 'export_detector']
