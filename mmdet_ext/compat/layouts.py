"""Comparison of the names and shapes of weights with those of a model, in groups."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping

from torch import Tensor

#: How many of a name's first parts make its group, as in ``backbone.layer1``.
GROUP_PARTS = 2


def grouped_keys(model: Mapping[str, Tensor], file: Mapping[str, Tensor]) -> list[str]:
    """Compare weights with a model by name and shape, names in groups of their first two parts.

    MMEngine lists each name that is missing or unexpected, hundreds of them where a file is that
    of another network. Counts of batches in batch norms (``num_batches_tracked``) are left out, as
    MMEngine leaves them out.

    Args:
        model: weights of the model by name, of its ``state_dict()``.
        file: weights of the file by name.

    Returns:
        Lines: the groups that are missing in the file, those that the model does not have, and
        each weight of another shape. There are none if the two agree.

    >>> import torch
    >>> model = {'backbone.a.weight': torch.zeros(2), 'head.fc.weight': torch.zeros(3, 512)}
    >>> file = {'net.a.weight': torch.zeros(2), 'head.fc.weight': torch.zeros(10, 512)}
    >>> for line in grouped_keys(model, file):
    ...     print(line)
    backbone.a.*: 1 missing in the file (all of the model's)
    net.a.*: 1 unexpected, not in the model
    head.fc.weight: (10, 512) in the file, (3, 512) in the model
    """
    missing, unexpected = _groups(model.keys() - file.keys()), _groups(file.keys() - model.keys())
    present = _groups(model.keys())
    lines = [
        f'{group}.*: {missing[group]} missing in the file '
        + (
            "(all of the model's)"
            if missing[group] == present[group]
            else f"(of the model's {present[group]})"
        )
        for group in present
        if group in missing
    ]
    lines += [f'{group}.*: {n} unexpected, not in the model' for group, n in unexpected.items()]
    return lines + [
        f'{name}: {tuple(file[name].shape)} in the file, {tuple(own.shape)} in the model'
        for name, own in model.items()
        if name in file and file[name].shape != own.shape
    ]


def _groups(names: Iterable[str]) -> Counter[str]:
    """Count names by group, in the order of the groups' names."""
    kept = sorted(name for name in names if not name.endswith('num_batches_tracked'))
    return Counter('.'.join(name.split('.')[:-1][:GROUP_PARTS]) or name for name in kept)
