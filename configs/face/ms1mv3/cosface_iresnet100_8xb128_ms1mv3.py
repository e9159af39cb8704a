# IResNet-100, CosFace with InsightFace's margin of 0.4, MS1MV3.
_base_ = [
    '../../_base_/models/iresnet100.py',
    '../../_base_/datasets/ms1mv3.py',
    '../../_base_/schedules/face_insightface_20e.py',
    '../../_base_/face_runtime.py',
]

model = dict(head=dict(num_classes=93431, margin=dict(_delete_=True, type='CosFace', m=0.4)))
