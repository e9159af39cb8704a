# RetinaNet with DIoU-NMS: a box whose centre is far from that of a better one may overlap it more.
_base_ = 'mmdet::retinanet/retinanet_r50_fpn_1x_coco.py'
custom_imports = dict(
    imports=['mmdet_ext.compat', 'mmdet_ext.detection'], allow_failed_imports=False
)

model = dict(test_cfg=dict(nms=dict(type='mmdet_ext.diou_nms', iou_threshold=0.5)))
