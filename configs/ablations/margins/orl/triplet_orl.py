# Triplet loss alone, batch-hard, on batches of 10 identities with 5 images each.
_base_ = 'softmax_orl.py'

model = dict(
    head=dict(
        margin=None,
        aux_losses=[dict(type='TripletLoss', margin=0.3, distance='cosine', loss_weight=3.0)],
    ),
)
train_dataloader = dict(
    batch_size=50,
    sampler=dict(
        _delete_=True,
        type='mmdet_ext.IdentityBalancedSampler',
        identities_per_batch=10,
        pictures_per_identity=5,
    ),
)
