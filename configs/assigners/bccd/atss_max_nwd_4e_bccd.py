# RetinaNet's assignment by the Wasserstein distance, of the size of the cells.
_base_ = './atss_max_iou_4e_bccd.py'

model = dict(
    train_cfg=dict(
        assigner=dict(iou_calculator=dict(type='mmdet_ext.NWDCalculator', constant=30.0)),
    ),
)
