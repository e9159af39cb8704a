# Scope, hooks and logging of pose estimation under `mim train mmpose`: those of detection with
# MMPose's own drawing.
_base_ = './runtime.py'
default_scope = 'mmpose'
# `mim test mmpose CONFIG --checkpoint X --show-dir DIR` draws every image with its people.
default_hooks = dict(visualization=dict(type='PoseVisualizationHook', enable=False))
visualizer = dict(type='PoseLocalVisualizer')
# The check of classes is of mmdet alone.
custom_hooks = []
