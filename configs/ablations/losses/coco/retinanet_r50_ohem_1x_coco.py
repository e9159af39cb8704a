# RetinaNet with cross entropy over positives and the three hardest negatives per positive.
_base_ = 'mmdet::retinanet/retinanet_r50_fpn_1x_coco.py'
custom_imports = dict(imports=['mmdet_ext.compat'], allow_failed_imports=False)

model = dict(
    bbox_head=dict(
        loss_cls=dict(
            _delete_=True,
            type='mmdet_ext.OHEMLoss',
            loss=dict(type='mmdet_ext.CrossEntropyLoss', use_sigmoid=True),
            use_sigmoid=True,
            negatives_per_positive=3.0,
            # Per level of the batch, as anchor heads call their loss; most levels have no positive.
            min_negatives=64,
        ),
    ),
)
