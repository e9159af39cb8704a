"""Choice of the sets to train and to evaluate on, from the names that programs give them.

Standard library only, so that a command-line tool can refuse a wrong folder at once.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Literal

Role = Literal['train', 'val', 'test', 'trainval']

_ROLE_WORDS: dict[str, Role] = {
    **dict.fromkeys(('train', 'training', 'trn'), 'train'),
    **dict.fromkeys(
        'val valid validation validate validating dev devel development eval evaluation '
        'minival'.split(),
        'val',
    ),
    **dict.fromkeys(('test', 'testing', 'tst', 'testdev', 'holdout'), 'test'),
    **dict.fromkeys(('trainval', 'trainvalid', 'traindev'), 'trainval'),
}
_FILLERS = frozenset('instances annotations annotation set split list ids coco voc'.split())
_ENDINGS = re.compile('(set|split|list|data|ids|images)$')
#: Names of a list that holds everything; CVAT writes the first.
_WHOLE = frozenset('default all full whole complete everything dataset'.split())


def split_role(name: str) -> Role | None:
    """Return the role of a set of this name, or None if the name says none.

    Args:
        name: Name of a list, a file or a folder, without a suffix.

    >>> [split_role(name) for name in ('Train', 'instances_val2017', 'validation', 'train_val')]
    ['train', 'val', 'val', 'trainval']
    >>> [split_role(name) for name in ('default', 'latest', 'test-dev2017', 'cat_train')]
    [None, None, 'test', 'train']
    """
    roles = {role for role in map(_word_role, _words(name)) if role}
    if 'trainval' in roles or roles == {'train', 'val'}:
        return 'trainval'
    if roles == {'test', 'val'}:  # COCO's test-dev
        return 'test'
    return next(iter(roles)) if len(roles) == 1 else None


def is_whole(name: str) -> bool:
    """Return whether a set of this name holds everything, so that it has to be split.

    >>> is_whole('default'), is_whole('Train')
    (True, False)
    """
    words = [word for word in _words(name) if word not in _FILLERS]
    return len(words) == 1 and words[0] in _WHOLE


def choose_sets(
    names: Sequence[str], held_out: Sequence[Role], *, train_on_held_out: bool = False
) -> tuple[str, str | None] | None:
    """Choose the names of the sets to train and to evaluate on.

    The set to train on has the role 'train', or 'trainval' where no 'val' is there, or it is the
    only one without a role. A set that it holds is never evaluated on: 'trainval' holds 'val'.

    Args:
        names: Names of all sets.
        held_out: Roles of the set to evaluate on, the preferred one first.
        train_on_held_out: Train on 'val' or 'test' where nothing else is there.

    Returns:
        Both names, the second one None if it has to be split off; None if several sets fit.

    >>> choose_sets(['Train', 'Validation', 'testing'], ['val', 'test'])
    ('Train', 'Validation')
    >>> choose_sets(['trainval', 'val', 'default'], ['val'])
    ('trainval', None)
    """
    if len(names) == 1:
        return names[0], None
    found = {role: _best(names, role) for role in ('train', 'trainval', 'val', 'test')}
    order = ['train', 'trainval'] if found['val'] else ['trainval', 'train']
    trained: str | None = next((role for role in order if found[role]), None)
    others = [name for name in names if split_role(name) is None]
    train = found[trained] if trained else [n for n in others if is_whole(n)] or others
    if not train and train_on_held_out:
        trained = next((role for role in ('val', 'test') if found[role]), None)
        train = found[trained] if trained else []
    seen = {trained, 'val'} if trained == 'trainval' else {trained}
    test = next((found[role] for role in held_out if role not in seen and found[role]), [])
    if len(train) != 1 or len(test) > 1:
        return None
    return train[0], test[0] if test else None


def may_share_images(first: str, second: str) -> bool:
    """Return whether two sets of these names may hold the same images.

    Sets that are trained on must share none with those that are evaluated on, except that
    'trainval' holds 'val'.

    >>> may_share_images('train', 'val'), may_share_images('val', 'trainval')
    (False, True)
    """
    roles = {split_role(first), split_role(second)}
    return len(roles) < 2 or None in roles or roles in ({'trainval', 'train'}, {'trainval', 'val'})


def _best(names: Sequence[str], role: str) -> list[str]:
    """Return the names of a role: those that say nothing else if there are any, else all."""
    fitting = [name for name in names if split_role(name) == role]
    for rank in (lambda name: name == role, lambda name: name.lower() == role, says_role_alone):
        best = [name for name in fitting if rank(name)]
        if best:
            return best
    return fitting


def says_role_alone(name: str) -> bool:
    """Return whether a name says the role of a set and nothing else.

    >>> says_role_alone('instances_Train2017'), says_role_alone('train_masks')
    (True, False)
    """
    return split_role(name) is not None and all(
        _word_role(word) or word in _FILLERS for word in _words(name)
    )


def _words(name: str) -> list[str]:
    """Return the words of a name in small letters: ``myTrain_2017`` has 'my' and 'train'."""
    return re.findall('[^\\W\\d_]+', re.sub('(?<=[a-z])(?=[A-Z])', ' ', name).lower())


def _word_role(word: str) -> Role | None:
    return _ROLE_WORDS.get(word) or _ROLE_WORDS.get(_ENDINGS.sub('', word))
