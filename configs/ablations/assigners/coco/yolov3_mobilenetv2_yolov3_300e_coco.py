# YOLOv3 that ignores a prior by the IoU of its predicted box, as in the paper.
_base_ = 'mmdet::yolo/yolov3_mobilenetv2_8xb24-320-300e_coco.py'
custom_imports = dict(imports=['mmdet_ext.compat'], allow_failed_imports=False)

model = dict(
    bbox_head=dict(type='mmdet_ext.YOLOV3Head'),
    train_cfg=dict(assigner=dict(_delete_=True, type='mmdet_ext.YOLOv3Assigner')),
)
