# MS1MV3, tested on LFW, CFP-FP and AgeDB-30 in one loader, as InsightFace evaluates. A leaf config
# takes this file instead of ms1mv3.py. The three .bin files are in the archive of MS1MV3. Results
# are face/lfw/accuracy, face/cfp_fp/accuracy, face/agedb_30/accuracy and face/mean/accuracy; the
# last one is the name for save_best.
_base_ = './ms1mv3.py'

val_dataloader = dict(
    dataset=dict(
        _delete_=True,
        type='ConcatDataset',
        datasets=[
            dict(
                type='mmdet_ext.FacePairsDataset',
                data_root={{_base_.data_root}},
                ann_file='lfw.bin',
                pipeline={{_base_.test_pipeline}},
            ),
            dict(
                type='mmdet_ext.FacePairsDataset',
                data_root={{_base_.data_root}},
                ann_file='cfp_fp.bin',
                pipeline={{_base_.test_pipeline}},
            ),
            dict(
                type='mmdet_ext.FacePairsDataset',
                data_root={{_base_.data_root}},
                ann_file='agedb_30.bin',
                pipeline={{_base_.test_pipeline}},
            ),
        ],
    ),
)
test_dataloader = val_dataloader
