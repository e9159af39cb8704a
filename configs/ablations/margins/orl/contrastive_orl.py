# Contrastive loss alone, over all pairs of a batch: 10 identities with 5 images each.
_base_ = 'triplet_orl.py'

model = dict(
    head=dict(
        aux_losses=[
            dict(
                type='ContrastiveLoss',
                margin=1.0,
                normalize=True,
                balance=True,
                loss_weight=4.0,
            ),
        ],
    ),
)
