# Scope, hooks and logging of semantic segmentation under `mim train mmseg`: those of detection with
# mmseg's own drawing. (face_runtime.py stays whole, because a pure-Python config imports it.)
_base_ = './runtime.py'
default_scope = 'mmseg'
# `mim test mmseg CONFIG --checkpoint X --show-dir DIR` draws every image with its labels.
default_hooks = dict(visualization=dict(type='SegVisualizationHook'))
visualizer = dict(type='SegLocalVisualizer')
# The check of classes is of mmdet alone.
custom_hooks = []
