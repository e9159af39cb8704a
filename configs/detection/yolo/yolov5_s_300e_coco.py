# YOLOv5s, layout v6, on COCO at 640 px. `python tools/train/convert_checkpoint.py yolov5 yolov5s.pt
# yolov5_s.pth` converts the published weights, which `mim test` and `load_from` read then.
_base_ = [
    '../../_base_/models/yolov5_s.py',
    '../../_base_/datasets/coco_mosaic_640.py',
    '../../_base_/schedules/yolov5_300e.py',
    '../../_base_/runtime.py',
]

# Averaged weights are validated and tested.
custom_hooks = [
    dict(type='NumClassCheckHook'),
    dict(
        type='EMAHook',
        ema_type='ExpMomentumEMA',
        momentum=1e-4,
        update_buffers=True,
        strict_load=False,
        priority=49,
    ),
]
