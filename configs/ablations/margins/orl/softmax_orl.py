# Plain softmax, the first row of the comparison. The other leaf configs change the
# head alone.
_base_ = [
    '../../../_base_/models/face_small.py',
    '../../../_base_/datasets/orl.py',
    '../../../_base_/schedules/face_small_30e.py',
    '../../../_base_/face_runtime.py',
]

model = dict(head=dict(margin=dict(type='Softmax')))
default_hooks = dict(checkpoint=dict(interval=10, max_keep_ckpts=1))
