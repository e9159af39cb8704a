# GFL with the unified generalised focal loss for the scores.
_base_ = 'mmdet::gfl/gfl_r50_fpn_1x_coco.py'
custom_imports = dict(imports=['mmdet_ext.compat'], allow_failed_imports=False)

model = dict(
    bbox_head=dict(
        loss_cls=dict(
            _delete_=True, type='mmdet_ext.GeneralizedFocalLoss', use_sigmoid=True, loss_weight=1.0
        ),
    ),
)
