# MobileFaceNet of its paper, ArcFace, MS1MV3, in the recipe of InsightFace's ms1mv3_mbf, whose
# network has twice the channels and 512 numbers per embedding.
_base_ = [
    '../../_base_/models/mobilefacenet.py',
    '../../_base_/datasets/ms1mv3.py',
    '../../_base_/schedules/face_insightface_40e.py',
    '../../_base_/face_runtime.py',
]

model = dict(head=dict(num_classes=93431))
