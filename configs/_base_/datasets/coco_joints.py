# COCO's 17 joints, their mirror joints, limbs and OKS constants, as MMPose's data sets want them.
# MMPose's own file of this kind, configs/_base_/datasets/coco.py, is looked up in the current
# folder first, where another file may have that name: in a checkout of this package, one does.
coco_joints = dict(
    dataset_name='coco',
    paper_info=dict(),
    keypoint_info={
        number: dict(name=name, id=number, color=[51, 153, 255], type=part, swap=swap)
        for number, (name, part, swap) in enumerate(
            [('nose', 'upper', '')]
            + [
                (f'{side}_{joint}', part, f'{other}_{joint}')
                for joint, part in (
                    ('eye', 'upper'),
                    ('ear', 'upper'),
                    ('shoulder', 'upper'),
                    ('elbow', 'upper'),
                    ('wrist', 'upper'),
                    ('hip', 'lower'),
                    ('knee', 'lower'),
                    ('ankle', 'lower'),
                )
                for side, other in (('left', 'right'), ('right', 'left'))
            ]
        )
    },
    skeleton_info={
        number: dict(link=link, id=number, color=[51, 153, 255])
        for number, link in enumerate(
            [
                ('left_ankle', 'left_knee'),
                ('left_knee', 'left_hip'),
                ('right_ankle', 'right_knee'),
                ('right_knee', 'right_hip'),
                ('left_hip', 'right_hip'),
                ('left_shoulder', 'left_hip'),
                ('right_shoulder', 'right_hip'),
                ('left_shoulder', 'right_shoulder'),
                ('left_shoulder', 'left_elbow'),
                ('right_shoulder', 'right_elbow'),
                ('left_elbow', 'left_wrist'),
                ('right_elbow', 'right_wrist'),
                ('left_eye', 'right_eye'),
                ('nose', 'left_eye'),
                ('nose', 'right_eye'),
                ('left_eye', 'left_ear'),
                ('right_eye', 'right_ear'),
                ('left_ear', 'left_shoulder'),
                ('right_ear', 'right_shoulder'),
            ]
        )
    },
    joint_weights=[1.0] * 7 + [1.2, 1.2, 1.5, 1.5, 1.0, 1.0, 1.2, 1.2, 1.5, 1.5],
    sigmas=[0.026, 0.025, 0.025, 0.035, 0.035, 0.079, 0.079, 0.072, 0.072]
    + [0.062, 0.062, 0.107, 0.107, 0.087, 0.087, 0.089, 0.089],
)
