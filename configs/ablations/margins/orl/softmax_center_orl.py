# Softmax and centre loss.
_base_ = 'softmax_orl.py'

model = dict(
    head=dict(
        aux_losses=[dict(type='CenterLoss', loss_weight=0.006)],
    ),
)
