# RetinaNet with focal loss: positives are weighted by 1 / log(1.10 + frequency) of their class,
# counted over each batch.
_base_ = 'mmdet::retinanet/retinanet_r50_fpn_1x_coco.py'
custom_imports = dict(imports=['mmdet_ext.compat'], allow_failed_imports=False)

model = dict(
    bbox_head=dict(
        loss_cls=dict(
            _delete_=True,
            type='mmdet_ext.FocalLoss',
            use_sigmoid=True,
            gamma=2.0,
            alpha=dict(type='inverse_log', counts='batch'),
            loss_weight=1.0,
        ),
    ),
)
