# InsightFace's recipe: SGD, a batch of 1024 on 8 devices, learning rate 0.1 without warm-up, down
# to 0 over 20 epochs by (1 - step / steps)^2, half precision. InsightFace bounds at 5 the norm of
# the network's gradient alone, MMEngine that of all gradients. Where the network's norm is above 5,
# as at the beginning, the class centres therefore move more slowly than in InsightFace.
max_epochs = 20
train_cfg = dict(type='EpochBasedTrainLoop', max_epochs=max_epochs, val_interval=1)
val_cfg = dict(type='ValLoop')
test_cfg = dict(type='TestLoop')

optim_wrapper = dict(
    type='AmpOptimWrapper',
    loss_scale='dynamic',
    optimizer=dict(type='SGD', lr=0.1, momentum=0.9, weight_decay=5e-4),
    clip_grad=dict(max_norm=5, norm_type=2),
)
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
auto_scale_lr = dict(base_batch_size=1024, enable=False)
