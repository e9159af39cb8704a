# GFL with our replacements of its quality and distribution focal losses.
_base_ = 'mmdet::gfl/gfl_r50_fpn_1x_coco.py'
custom_imports = dict(imports=['mmdet_ext.compat'], allow_failed_imports=False)

model = dict(
    bbox_head=dict(
        loss_cls=dict(type='mmdet_ext.QualityFocalLoss'),
        loss_dfl=dict(type='mmdet_ext.DistributionFocalLoss'),
    ),
)
