# RetinaNet on decoded boxes with the normalised Wasserstein distance, for small objects.
_base_ = 'mmdet::retinanet/retinanet_r50_fpn_1x_coco.py'
custom_imports = dict(imports=['mmdet_ext.compat'], allow_failed_imports=False)

model = dict(
    bbox_head=dict(
        reg_decoded_bbox=True,
        loss_bbox=dict(_delete_=True, type='mmdet_ext.NWDLoss', loss_weight=2.0),
    ),
)
