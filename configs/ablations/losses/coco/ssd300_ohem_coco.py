# SSD with its losses as options: focal loss over the three hardest negatives per positive.
_base_ = 'mmdet::ssd/ssd300_coco.py'
custom_imports = dict(imports=['mmdet_ext.compat'], allow_failed_imports=False)

model = dict(
    bbox_head=dict(
        type='mmdet_ext.SSDHead',
        loss_cls=dict(
            type='mmdet_ext.OHEMLoss',
            loss=dict(type='mmdet_ext.FocalLoss', use_sigmoid=False, alpha=None),
            negatives_per_positive=3.0,
        ),
        loss_bbox=dict(type='mmdet_ext.SmoothL1Loss', beta=1.0),
    ),
)
