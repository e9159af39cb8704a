# GFL with our replacements of its quality and distribution focal losses.
_base_ = 'mmdet::gfl/gfl_r50_fpn_1x_coco.py'

model = dict(
    bbox_head=dict(
        loss_cls=dict(type='mmdet_ext.QualityFocalLoss'),
        loss_dfl=dict(type='mmdet_ext.DistributionFocalLoss'),
    ),
)
