# Light-Head R-CNN: a large separable convolution makes 10 x 7 x 7 maps for any number of classes,
# and one fully connected layer stands between position-sensitive pooling and the predictions.
_base_ = [
    '../../_base_/models/faster_rcnn_r18_c5.py',
    '../../_base_/datasets/shapes.py',
    '../../_base_/schedules/adamw_12e.py',
    '../../_base_/runtime.py',
]

model = dict(
    roi_head=dict(
        type='mmdet_ext.LightHeadRoIHead',
        in_channels=64,
        mid_channels=64,
        map_channels=490,
        kernel_size=15,
        bbox_roi_extractor=dict(
            _delete_=True,
            type='mmdet_ext.PSRoIPool',
            out_channels=10,
            output_size=7,
            featmap_strides=[8],
        ),
        bbox_head=dict(
            type='ConvFCBBoxHead',
            num_shared_fcs=1,
            in_channels=10,
            fc_out_channels=512,
            roi_feat_size=7,
            num_classes=3,
            reg_class_agnostic=True,
        ),
    ),
)
train_dataloader = dict(batch_size=4)
