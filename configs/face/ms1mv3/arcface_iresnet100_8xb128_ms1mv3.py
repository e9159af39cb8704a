# IResNet-100, ArcFace, MS1MV3, in the recipe of IResNet-50. InsightFace has also trained its
# ms1mv3_r100 with a learning rate of 0.2 over 25 epochs.
_base_ = [
    '../../_base_/models/iresnet100.py',
    '../../_base_/datasets/ms1mv3.py',
    '../../_base_/schedules/face_insightface_20e.py',
    '../../_base_/face_runtime.py',
]

model = dict(head=dict(num_classes=93431))
