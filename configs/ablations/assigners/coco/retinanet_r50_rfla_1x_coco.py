# RetinaNet for tiny objects: anchors are receptive fields, ranked by their distance to a box.
_base_ = 'mmdet::retinanet/retinanet_r50_fpn_1x_coco.py'
custom_imports = dict(imports=['mmdet_ext.compat'], allow_failed_imports=False)

model = dict(
    bbox_head=dict(type='mmdet_ext.RetinaHead'),
    train_cfg=dict(
        assigner=dict(
            _delete_=True,
            type='mmdet_ext.RFLAAssigner',
            receptive_fields=None,
            ignore_iof_thr=-1,
        ),
    ),
)
