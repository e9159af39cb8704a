# Faster R-CNN whose second stage learns from the hardest regions.
_base_ = 'mmdet::faster_rcnn/faster-rcnn_r50_fpn_1x_coco.py'
custom_imports = dict(imports=['mmdet_ext.compat'], allow_failed_imports=False)

model = dict(
    roi_head=dict(
        bbox_head=dict(
            loss_cls=dict(
                _delete_=True,
                type='mmdet_ext.OHEMLoss',
                loss=dict(type='mmdet_ext.CrossEntropyLoss', use_sigmoid=False),
                negatives_per_positive=3.0,
                loss_weight=1.0,
            ),
        ),
    ),
)
