# GFL with the anchors of largest IoU, RetinaNet's rule.
_base_ = 'gfl_batched_4e_bccd.py'

model = dict(
    train_cfg=dict(
        assigner=dict(
            _delete_=True,
            type='mmdet_ext.MaxIoUAssigner',
            pos_iou_thr=0.5,
            neg_iou_thr=0.4,
            min_pos_iou=0.0,
        ),
    ),
)
