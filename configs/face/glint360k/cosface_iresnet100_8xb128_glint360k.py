# IResNet-100, CosFace, Glint360K: InsightFace's glint360k_r100.
_base_ = [
    '../../_base_/models/iresnet100.py',
    '../../_base_/datasets/glint360k.py',
    '../../_base_/schedules/face_insightface_20e.py',
    '../../_base_/face_runtime.py',
]

model = dict(head=dict(num_classes=360232, margin=dict(_delete_=True, type='CosFace', m=0.4)))
optim_wrapper = dict(optimizer=dict(weight_decay=1e-4))
