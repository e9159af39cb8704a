# Faster R-CNN whose RPN learns from the hardest negative anchors, not from random ones.
_base_ = 'mmdet::faster_rcnn/faster-rcnn_r50_fpn_1x_coco.py'
custom_imports = dict(imports=['mmdet_ext.compat'], allow_failed_imports=False)

model = dict(
    train_cfg=dict(
        rpn=dict(
            sampler=dict(
                _delete_=True, type='mmdet_ext.HardNegativeSampler', num=256, pos_fraction=0.5
            ),
        ),
    ),
)
