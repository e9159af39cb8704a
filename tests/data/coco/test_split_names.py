"""Tests of the roles of sets by their names, and of the choice of sets."""

from __future__ import annotations

import pytest

from mmdet_ext.data.coco.split_names import choose_sets, may_share_images, split_role

ROLES = {
    'train': 'train Train TRAIN training trainset train2017 2017_train train-set instances_train '
    'myTrain cat_train trn Train_1',
    'val': 'val Val valid VALID validation Validation val2017 dev Dev eval minival2014 '
    'instances_val2017 valset devel',
    'test': 'test TEST testing test2017 test-dev2017 testset my_test',
    'trainval': 'trainval TrainVal train_val trainval2007 Train-Valid',
    None: 'default all mine latest contest interval carnival job_12 constraint labels trainer',
}


@pytest.mark.parametrize(
    ('name', 'role'), [(name, role) for role, names in ROLES.items() for name in names.split()]
)
def test_names_say_their_role(name: str, role: str | None) -> None:
    assert split_role(name) == role


@pytest.mark.parametrize(
    ('names', 'expected'),
    [
        ('default', ('default', None)),
        ('Train Validation', ('Train', 'Validation')),
        ('train2017 val2017', ('train2017', 'val2017')),
        ('training dev', ('training', 'dev')),
        ('train valid testing', ('train', 'testing')),
        ('default val', ('default', 'val')),
        ('default labels val', ('default', 'val')),
        ('TRAINVAL TRAIN VAL TEST', ('TRAIN', 'TEST')),
        ('Trainval Valid', ('Trainval', None)),
        ('train Train val', ('train', 'val')),
        ('train train_small val', ('train', 'val')),
        ('train_a train_b val', None),
        ('one two', None),
        ('val test', ('val', 'test')),
        ('train val_a val_b', None),
    ],
)
def test_sets_are_chosen_by_their_roles(
    names: str, expected: tuple[str, str | None] | None
) -> None:
    found = choose_sets(names.split(), ('test', 'val'), train_on_held_out=True)
    assert found == expected


def test_held_out_sets_are_trained_on_only_where_asked() -> None:
    assert choose_sets(['val', 'test'], ('val', 'test')) is None


@pytest.mark.parametrize(
    ('first', 'second', 'may'),
    [
        ('Train', 'Validation', False),
        ('train', 'test', False),
        ('val', 'test', False),
        ('trainval', 'test', False),
        ('trainval', 'val', True),
        ('train', 'trainval', True),
        ('train2007', 'train2012', True),
        ('mine', 'val', True),
    ],
)
def test_sets_that_must_share_no_image(first: str, second: str, may: bool) -> None:
    assert may_share_images(first, second) is may_share_images(second, first) is may
