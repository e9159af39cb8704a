# IResNet-50, ArcFace, MS1MV3 on one device: InsightFace's ms1mv3_r50_onegpu.
_base_ = [
    '../../_base_/models/iresnet50.py',
    '../../_base_/datasets/ms1mv3.py',
    '../../_base_/schedules/face_insightface_20e.py',
    '../../_base_/face_runtime.py',
]

model = dict(head=dict(num_classes=93431))
optim_wrapper = dict(optimizer=dict(lr=0.02))
auto_scale_lr = dict(base_batch_size=128)
