# RetinaNet with equalised focal loss, for long-tailed classes.
_base_ = 'mmdet::retinanet/retinanet_r50_fpn_1x_coco.py'
custom_imports = dict(imports=['mmdet_ext.compat'], allow_failed_imports=False)

model = dict(
    bbox_head=dict(
        loss_cls=dict(
            _delete_=True, type='mmdet_ext.EqualizedFocalLoss', use_sigmoid=True, loss_weight=1.0
        ),
    ),
)
