# IResNet-100, CosFace, WebFace42M: InsightFace's wf42m_pfc02_r100, but with the centres of all
# identities at every step, where InsightFace's draws a fifth of them. Each device holds the
# centres, their gradient and their momentum: 3 x 4.2 GB.
_base_ = [
    '../../_base_/models/iresnet100.py',
    '../../_base_/datasets/webface.py',
    '../../_base_/schedules/face_insightface_20e.py',
    '../../_base_/face_runtime.py',
]

model = dict(head=dict(num_classes=2059906, margin=dict(_delete_=True, type='CosFace', m=0.4)))
