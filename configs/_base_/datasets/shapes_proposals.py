# The shapes with proposals from files, for detectors without a proposal network. For each of train
# and val, `python tools/data/selective_search.py data/shapes/annotations/instances_train.json
# --images data/shapes/images/train --out data/shapes/proposals/train.pkl` writes them.
_base_ = './shapes.py'

train_pipeline = [
    dict(type='LoadImageFromFile', backend_args=None),
    dict(type='LoadProposals', num_max_proposals=None),
    dict(type='LoadAnnotations', with_bbox=True),
    dict(
        type='ProposalBroadcaster',
        transforms=[
            dict(type='Resize', scale=(240, 180), keep_ratio=True),
            dict(type='RandomFlip', prob=0.5),
        ],
    ),
    dict(type='PackDetInputs'),
]
test_pipeline = [
    dict(type='LoadImageFromFile', backend_args=None),
    dict(type='LoadProposals', num_max_proposals=None),
    dict(
        type='ProposalBroadcaster',
        transforms=[dict(type='Resize', scale=(240, 180), keep_ratio=True)],
    ),
    dict(type='LoadAnnotations', with_bbox=True),
    dict(
        type='PackDetInputs',
        meta_keys=('img_id', 'img_path', 'ori_shape', 'img_shape', 'scale_factor'),
    ),
]
train_dataloader = dict(
    dataset=dict(proposal_file='proposals/train.pkl', pipeline=train_pipeline),
)
val_dataloader = dict(
    dataset=dict(proposal_file='proposals/val.pkl', pipeline=test_pipeline),
)
test_dataloader = val_dataloader
