# YOLOv3 with the squared error of the objectness in place of the binary cross entropy.
_base_ = 'yolov3_ignore_by_prediction_12e_bccd.py'

model = dict(
    bbox_head=dict(
        loss_conf=dict(_delete_=True, type='MSELoss', loss_weight=1.0, reduction='sum'),
    ),
)
