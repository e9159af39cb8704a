# InsightFace's recipe for MobileFaceNet: 40 epochs and a fifth of the weight decay.
_base_ = './face_insightface_20e.py'

max_epochs = 40
train_cfg = dict(max_epochs=max_epochs)
optim_wrapper = dict(optimizer=dict(weight_decay=1e-4))
param_scheduler = [
    dict(
        type='PolyLR',
        power=2,
        eta_min=0,
        begin=0,
        end=max_epochs,
        by_epoch=True,
        convert_to_iter_based=True,
    ),
]
