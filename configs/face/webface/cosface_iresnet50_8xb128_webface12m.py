# IResNet-50, CosFace, WebFace12M (WebFace600K): InsightFace's wf12m_r50.
_base_ = [
    '../../_base_/models/iresnet50.py',
    '../../_base_/datasets/webface.py',
    '../../_base_/schedules/face_insightface_20e.py',
    '../../_base_/face_runtime.py',
]

data_root = 'data/webface12m/'
model = dict(head=dict(num_classes=617970, margin=dict(_delete_=True, type='CosFace', m=0.4)))
train_dataloader = dict(dataset=dict(data_root=data_root))
val_dataloader = dict(dataset=dict(data_root=data_root))
test_dataloader = dict(dataset=dict(data_root=data_root))
