# YOLOv3 with the squared error of the centres in place of the binary cross entropy.
_base_ = 'yolov3_ignore_by_prediction_12e_bccd.py'

model = dict(
    bbox_head=dict(
        loss_xy=dict(_delete_=True, type='MSELoss', loss_weight=2.0, reduction='sum'),
    ),
)
