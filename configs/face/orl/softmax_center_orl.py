# Softmax and centre loss.
_base_ = './softmax_orl.py'

model = dict(
    head=dict(
        aux_losses=[
            dict(type='CenterLoss', num_classes=30, in_channels=256, loss_weight=0.006),
        ],
    ),
)
