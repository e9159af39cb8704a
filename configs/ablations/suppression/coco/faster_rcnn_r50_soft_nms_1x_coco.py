# Faster R-CNN with soft-NMS: detections that overlap a better one keep a part of their score.
_base_ = 'mmdet::faster_rcnn/faster-rcnn_r50_fpn_1x_coco.py'
custom_imports = dict(
    imports=['mmdet_ext.compat', 'mmdet_ext.detection'], allow_failed_imports=False
)

model = dict(
    test_cfg=dict(
        rcnn=dict(
            nms=dict(_delete_=True, type='mmdet_ext.soft_nms', iou_threshold=0.5, min_score=0.05)
        )
    )
)
