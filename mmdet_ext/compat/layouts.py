"""Comparison of the names and shapes of weights with those of a model, in groups."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from torch import Tensor

#: How many of a name's first parts make its group, as in ``backbone.layer1``.
GROUP_PARTS = 2


@dataclass(frozen=True)
class LayoutReport:
    """Comparison of the weights of a file with those of a model, by name and shape.

    Attributes:
        present: names of the model's weights.
        missing: names that the file does not have.
        unexpected: names that the model does not have.
        reshaped: names of weights whose shapes differ, with that of the file and that of the model.
    """

    present: tuple[str, ...]
    missing: tuple[str, ...]
    unexpected: tuple[str, ...]
    reshaped: dict[str, tuple[tuple[int, ...], tuple[int, ...]]]

    @property
    def fits(self) -> bool:
        """Return whether all weights of both sides have their counterpart, of the same shape."""
        return not (self.missing or self.unexpected or self.reshaped)

    def counts(self) -> str:
        """Return the numbers of weights that match, and that do not, in one line."""
        matched = len(self.present) - len(self.missing) - len(self.reshaped)
        return (
            f'{matched} matched, {len(self.missing)} missing in the file, {len(self.unexpected)} '
            f"unexpected, {len(self.reshaped)} of another shape (the model's {len(self.present)})"
        )

    def lines(self) -> list[str]:
        """Return a line per group of names that are missing or unexpected, and per shape."""
        missing, unexpected = _groups(self.missing), _groups(self.unexpected)
        lines = [
            f'{group}.*: {missing[group]} missing in the file '
            + ("(all of the model's)" if missing[group] == n else f"(of the model's {n})")
            for group, n in _groups(self.present).items()
            if group in missing
        ]
        lines += [f'{group}.*: {n} unexpected, not in the model' for group, n in unexpected.items()]
        return lines + [
            f'{name}: {theirs} in the file, {own} in the model'
            for name, (theirs, own) in self.reshaped.items()
        ]


def compare_layouts(
    model: Mapping[str, Tensor],
    file: Mapping[str, Tensor],
    missing: Iterable[str] | None = None,
    unexpected: Iterable[str] | None = None,
) -> LayoutReport:
    """Compare weights with a model by name and shape.

    Counts of batches in batch norms (``num_batches_tracked``) do not count here, nor in MMEngine.

    Args:
        model: weights of the model by name, of its ``state_dict()``.
        file: weights of the file by name.
        missing: names that are missing, where a loader has found them; by default all names of the
            model that the file does not have.
        unexpected: the same of the unexpected names.

    >>> import torch
    >>> model = {'backbone.a.weight': torch.zeros(2), 'head.fc.weight': torch.zeros(3, 512)}
    >>> file = {'net.a.weight': torch.zeros(2), 'head.fc.weight': torch.zeros(10, 512)}
    >>> report = compare_layouts(model, file)
    >>> print(report.counts())
    0 matched, 1 missing in the file, 1 unexpected, 1 of another shape (the model's 2)
    >>> for line in report.lines():
    ...     print(line)
    backbone.a.*: 1 missing in the file (all of the model's)
    net.a.*: 1 unexpected, not in the model
    head.fc.weight: (10, 512) in the file, (3, 512) in the model
    """
    return LayoutReport(
        _weights(model),
        _weights(model.keys() - file.keys() if missing is None else missing),
        _weights(file.keys() - model.keys() if unexpected is None else unexpected),
        {
            name: (tuple(file[name].shape), tuple(own.shape))
            for name, own in model.items()
            if isinstance(own, Tensor)  # not the further state of a module
            and isinstance(file.get(name), Tensor)
            and file[name].shape != own.shape
        },
    )


def grouped_keys(model: Mapping[str, Tensor], file: Mapping[str, Tensor]) -> list[str]:
    """Return the lines of `compare_layouts`: none if the two agree."""
    return compare_layouts(model, file).lines()


def _weights(names: Iterable[str]) -> tuple[str, ...]:
    """Return names in order, without counts of batches."""
    return tuple(sorted(name for name in names if not name.endswith('num_batches_tracked')))


def _groups(names: Iterable[str]) -> Counter[str]:
    """Count names by group, in the order of the names."""
    return Counter('.'.join(name.split('.')[:-1][:GROUP_PARTS]) or name for name in names)
