"""Proposals of a file, attached to the images of a data set."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

from mmdet_ext.data.proposals import proposal_name
from mmdet_ext.data.reports import listed


def attach_proposals(images: list[dict[str, Any]], proposals: Any, path: str) -> None:
    """Give each image its proposals, under the key that ``LoadProposals`` reads.

    mmdet asserts that there are as many proposals as images, without a message. Here a file may
    have more images than the data set, as one that has dropped some.

    Args:
        images: entries of a data set, with ``img_path``. They are changed.
        proposals: contents of the file: proposals by mmdet's names of images.
        path: the file, for messages.

    Raises:
        ValueError: if the contents are no dict, if an image has no proposals, or if two images have
            one name.
    """
    advice = 'write the file anew with tools/data/selective_search.py'
    if not isinstance(proposals, dict):
        raise ValueError(
            f'{path} holds a {type(proposals).__name__}, and must hold a dict from folder/file to '
            f'proposals, as mmdet 3 has it: {advice}'
        )
    names = [proposal_name(Path(image['img_path'])) for image in images]
    repeated = [name for name, count in Counter(names).items() if count > 1]
    if repeated:
        raise ValueError(
            f'{len(repeated)} names stand for several images ({listed(repeated)}): proposals are '
            'named by the last folder and the file alone. Rename images or folders'
        )
    missing = [name for name in names if name not in proposals]
    if missing:
        raise ValueError(
            f'{path} has proposals for {len(proposals)} images, but for {len(missing)} of the '
            f'{len(names)} of this data set it has none ({listed(missing)}): {advice}'
        )
    for image, name in zip(images, names, strict=True):
        image['proposals'] = proposals[name]
