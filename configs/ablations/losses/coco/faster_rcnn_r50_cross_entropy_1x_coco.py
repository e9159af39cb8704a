# Faster R-CNN with smoothed labels.
_base_ = 'mmdet::faster_rcnn/faster-rcnn_r50_fpn_1x_coco.py'
custom_imports = dict(imports=['mmdet_ext.compat'], allow_failed_imports=False)

model = dict(
    roi_head=dict(
        bbox_head=dict(
            loss_cls=dict(
                _delete_=True,
                type='mmdet_ext.CrossEntropyLoss',
                use_sigmoid=False,
                label_smoothing=0.1,
                loss_weight=1.0,
            ),
        ),
    ),
)
