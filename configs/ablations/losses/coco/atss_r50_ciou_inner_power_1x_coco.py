# ATSS with CIoU as alpha-IoU (power) over inner boxes (inner_ratio).
_base_ = 'mmdet::atss/atss_r50_fpn_1x_coco.py'
custom_imports = dict(imports=['mmdet_ext.compat'], allow_failed_imports=False)

model = dict(
    bbox_head=dict(
        loss_bbox=dict(
            _delete_=True, type='mmdet_ext.CIoULoss', power=3.0, inner_ratio=0.8, loss_weight=2.0
        ),
    ),
)
