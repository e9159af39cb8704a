# Plain softmax: no margin, no normalisation, no bias. The other leaf configs change the head alone.
_base_ = [
    '../../../_base_/models/face_digits.py',
    '../../../_base_/datasets/digits.py',
    '../../../_base_/schedules/face_digits.py',
    '../../../_base_/face_runtime.py',
]

model = dict(head=dict(margin=dict(type='Softmax')))

# The images are in memory and small: preparing them is faster than passing them between workers.
train_dataloader = dict(num_workers=0, persistent_workers=False)
val_dataloader = dict(num_workers=0, persistent_workers=False)
test_dataloader = val_dataloader

custom_hooks = [dict(type='mmdet_ext.FeatureScatterHook', interval=2)]
default_hooks = dict(checkpoint=dict(interval=8, max_keep_ckpts=1))
