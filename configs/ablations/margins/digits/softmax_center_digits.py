# Softmax with centre loss: embeddings are drawn to the centre of their class.
_base_ = 'softmax_digits.py'

model = dict(
    head=dict(
        margin=dict(type='Softmax'),
        aux_losses=[dict(type='CenterLoss', loss_weight=0.2)],
    )
)
