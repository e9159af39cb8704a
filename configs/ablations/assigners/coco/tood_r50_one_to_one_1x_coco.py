# TOOD with one prior per box after the first epochs, as heads without suppression need it.
_base_ = 'tood_r50_task_aligned_1x_coco.py'

model = dict(
    train_cfg=dict(
        assigner=dict(_delete_=True, type='mmdet_ext.OneToOneTaskAlignedAssigner'),
    ),
)
