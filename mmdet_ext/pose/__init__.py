"""Poses of several people: registered losses, codecs and heads, for runs of MMPose.

Losses need no host; codecs and heads are the only part of the package that imports MMPose.
"""

from mmdet_ext.registry import attach_codecs

attach_codecs()
