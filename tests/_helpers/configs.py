"""Small configs: any leaf trains two iterations on a CPU, on a few made images."""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mmengine.config import Config

from mmdet_ext.data.proposals import find_proposals, grid_windows, write_proposals
from mmdet_ext.data.synthetic import faces

CONFIGS = Path(__file__).resolve().parents[2] / 'configs'

#: Longer and shorter side to which images are resized, px.
SCALE = (96, 72)
#: Height and width of the crops of a segmentor, px.
CROP = (64, 64)
ITERATIONS = 2
BATCH_SIZE = 2
#: Batch size of faces: two images of each of two identities, where a sampler balances them.
FACE_BATCH_SIZE = 4
#: Number of validation images of real digits, enough to have some of each digit.
DIGITS = 60
#: Divisor of the channels of a ResNet and of all that follows it.
NARROWER = 4
WIDTHS = ('in_channels', 'out_channels', 'feat_channels')
FPN_WIDTH = 256
#: Names of the initialisation that downloads weights.
PRETRAINED = ('Pretrained', 'PretrainedInit')
#: Largest depth and number of channels of an IResNet.
IRESNET = dict(depth=18, base_channels=16)


def leaf_configs() -> list[Path]:
    """List the configs of the checkout that train a detector: all but those of other tasks.

    Raises:
        FileNotFoundError: if there are none, as in an installed package.
    """
    return _leaves('detection')


def face_leaf_configs() -> list[Path]:
    """List the configs of the checkout that train a face recogniser.

    Raises:
        FileNotFoundError: if there are none, as in an installed package.
    """
    return _leaves('face')


def segmentation_leaf_configs() -> list[Path]:
    """List the configs of the checkout that train a segmentor.

    Raises:
        FileNotFoundError: if there are none, as in an installed package.
    """
    return _leaves('segmentation')


def pose_leaf_configs() -> list[Path]:
    """List the configs of the checkout that train a pose estimator."""
    return _leaves('pose')


def _task(path: Path) -> str:
    """Return the task of a config, by its path within ``configs``."""
    if path.parts[0] in ('face', 'pose', 'segmentation'):
        return path.parts[0]
    return 'face' if path.parts[:2] == ('ablations', 'margins') else 'detection'


def _leaves(task: str) -> list[Path]:
    found = sorted(
        path
        for path in CONFIGS.rglob('*.py')
        if '_base_' not in path.parts and _task(path.relative_to(CONFIGS)) == task
    )
    if not found:
        raise FileNotFoundError(
            f'no configs of {task} in {CONFIGS}: they are found in a checkout only'
        )
    return found


def shrink(config: str | Path, data_root: str | Path, **options: Any) -> Config:
    """Load a detection config, and make it small enough for a test.

    Data, sizes and lengths change; types, losses, assigners, optimiser and hooks do not. There is
    one epoch of two iterations with two images, and validation takes two images. No score is too
    low for a detection, so that an untrained model has some to evaluate.

    Args:
        config: a leaf config.
        data_root: folder written by `mmdet_ext.data.synthetic.shapes.make_shapes`.
        **options: options to set afterwards, by dotted key as in ``--cfg-options``.

    Returns:
        Config: the config, which needs a ``work_dir``.
    """
    cfg = Config.fromfile(config)
    root = Path(data_root)
    classes = _class_names(root / 'annotations' / 'instances_train.json')
    for split in ('train', 'val', 'test'):
        loader, evaluator = cfg.get(f'{split}_dataloader'), cfg.get(f'{split}_evaluator')
        # The drawn set has two parts.
        part = 'train' if split == 'train' else 'val'
        images = ITERATIONS * BATCH_SIZE if split == 'train' else ITERATIONS
        if loader is not None:
            loader.update(num_workers=0, persistent_workers=False)
            if split == 'train':
                loader.batch_size = BATCH_SIZE
            for dataset in _dicts_with(loader, 'ann_file'):
                dataset.update(
                    data_root=str(root),
                    ann_file=f'annotations/instances_{part}.json',
                    data_prefix=dict(img=f'images/{part}/'),
                    metainfo=dict(classes=classes),
                    indices=images,
                )
            for dataset in _dicts_with(loader, 'proposal_file'):
                dataset.proposal_file = str(_proposals(root, part))
        for metric in _dicts_with(evaluator, 'ann_file'):
            metric.ann_file = str(root / 'annotations' / f'instances_{part}.json')
    _shrink_everywhere(cfg, len(classes))
    _narrow(cfg.model)
    cfg.randomness = dict(seed=0)
    _full_precision(cfg)
    _one_epoch(cfg, Path(config).stem)
    cfg.merge_from_dict(options)
    return cfg


def shrink_face(config: str | Path, data_root: str | Path, **options: Any) -> Config:
    """Load a face config, and make it small enough for a test.

    Data, sizes and lengths change; types, margins, losses, optimiser and hooks do not. There is
    one epoch of two iterations with four images, in full precision. Data sets read the made faces
    in their own form; of the real digits they read a few. An IResNet with an embedding has 18
    layers and fewer channels.

    Args:
        config: a leaf config.
        data_root: folder written by `mmdet_ext.data.synthetic.faces.make_faces`.
        **options: options to set afterwards, by dotted key as in ``--cfg-options``.

    Returns:
        Config: the config, which needs a ``work_dir``.

    Raises:
        ValueError: if a loader has no data set of faces.
    """
    cfg = Config.fromfile(config)
    for split in ('train', 'val', 'test'):
        loader = cfg.get(f'{split}_dataloader')
        if loader is not None:
            _shrink_face_loader(loader, split == 'train', Path(data_root))
    digits = _of_types(cfg.train_dataloader, 'DigitsDataset')
    identities = len(digits[0].get('digits', range(10))) if digits else len(faces.TRAINED)
    for part in _dicts_with(cfg, 'num_classes'):
        part.num_classes = identities
    for evaluator in ('val_evaluator', 'test_evaluator'):
        _shrink_face_evaluator(cfg.get(evaluator))
    for part in _of_types(cfg.model, 'IResNet'):
        if part.get('with_embedding', True):
            part.update({key: min(part.get(key, most), most) for key, most in IRESNET.items()})
    _drop_pretrained(cfg)
    _full_precision(cfg)
    _one_epoch(cfg, Path(config).stem)
    cfg.merge_from_dict(options)
    return cfg


def shrink_segmentation(config: str | Path, data_root: str | Path, **options: Any) -> Config:
    """Load a config of segmentation, and make it small enough for a test.

    Data, sizes and lengths change; types, losses, heads, optimiser and hooks do not. There is one
    epoch of two iterations with two crops, and validation takes two images.

    Args:
        config: a leaf config.
        data_root: folder written by `mmdet_ext.data.synthetic.shapes.make_shapes`, with masks.
        **options: options to set afterwards, by dotted key as in ``--cfg-options``.

    Returns:
        Config: the config, which needs a ``work_dir``.
    """
    cfg = Config.fromfile(config)
    for split in ('train', 'val', 'test'):
        loader, part = cfg[f'{split}_dataloader'], 'train' if split == 'train' else 'val'
        loader.update(num_workers=0, persistent_workers=False)
        if split == 'train':
            loader.batch_size = BATCH_SIZE
        for dataset in _dicts_with(loader, 'data_prefix'):
            dataset.update(
                data_root=str(data_root),
                data_prefix=dict(img_path=f'images/{part}', seg_map_path=f'masks/{part}'),
                indices=ITERATIONS * BATCH_SIZE if split == 'train' else ITERATIONS,
            )
    for part in _dicts_with(cfg, 'crop_size'):
        part.crop_size = CROP
    for part in _dicts_with(cfg.model, 'min_kept'):
        part.min_kept = 100
    if cfg.model.data_preprocessor.get('size') is not None:
        cfg.model.data_preprocessor.size = CROP
    cfg.randomness = dict(seed=0)
    _one_epoch(cfg, Path(config).stem)
    cfg.merge_from_dict(options)
    return cfg


def _shrink_face_loader(loader: Any, train: bool, root: Path) -> None:
    loader.update(num_workers=0, persistent_workers=False)
    loader.batch_size = FACE_BATCH_SIZE
    for sampler in _of_types(loader, 'IdentityBalancedSampler'):
        sampler.update(identities_per_batch=2, pictures_per_identity=FACE_BATCH_SIZE // 2)
    for part in _dicts_with(loader, 'times'):
        part.times = 1
    count = 0
    for dataset in _of_types(loader, *_FACE_DATASETS):
        # Of the dict itself: those of a ConfigDict would be classes, which MMEngine cannot dump.
        kept = {key: value for key, value in dict.items(dataset) if key in _KEPT}
        changed = _FACE_DATASETS[bare(dataset.type)](dataset, train, root)
        dataset.clear()
        dataset.update(kept, **changed)
        count += 1
    if not count:
        raise ValueError(f'a loader has none of {", ".join(_FACE_DATASETS)}: {loader}')


def _of_folder(dataset: Any, train: bool, root: Path) -> dict[str, Any]:
    people = faces.TRAINED if train else faces.UNSEEN
    return dict(data_root=str(root / 'faces'), identities=list(people))


def _of_records(dataset: Any, train: bool, root: Path) -> dict[str, Any]:
    return dict(data_root=str(root))


def _of_pairs(dataset: Any, train: bool, root: Path) -> dict[str, Any]:
    ending = Path(dataset.ann_file).suffix
    changed: dict[str, Any] = dict(data_root=str(root), ann_file=f'pairs{ending}')
    if ending == '.bin':
        return dict(**changed, folds=faces.FOLDS)
    return dict(**changed, data_prefix='faces')


def _of_digits(dataset: Any, train: bool, root: Path) -> dict[str, Any]:
    kept = {key: dataset[key] for key in ('digits', 'part') if key in dataset}
    return dict(**kept, indices=ITERATIONS * FACE_BATCH_SIZE if train else DIGITS)


#: Function per data set that returns its options for the made files.
_FACE_DATASETS = {
    'FaceFolderDataset': _of_folder,
    'FaceRecordDataset': _of_records,
    'FacePairsDataset': _of_pairs,
    'DigitsDataset': _of_digits,
}
#: Options of data sets that stay, as they do not choose images.
_KEPT = ('type', 'pipeline', 'test_mode', 'bad_images', 'bad_records', 'lazy_init')


def _shrink_face_evaluator(evaluator: Any) -> None:
    # So few images show no lower rate, and lack the identities that a config names.
    for key in ('fars', 'fpirs'):
        for metric in _dicts_with(evaluator, key):
            metric[key] = (0.5,)
    for metric in _dicts_with(evaluator, 'nonmated'):
        metric.nonmated = 0.5
    for metric in _dicts_with(evaluator, 'distractors'):
        metric.distractors = ()
    for metric in _dicts_with(evaluator, 'out_dir'):
        metric.out_dir = None


def _drop_pretrained(cfg: Config) -> None:
    for part in _dicts_with(cfg, 'init_cfg'):
        if isinstance(part.init_cfg, dict) and bare(part.init_cfg.get('type')) in PRETRAINED:
            part.init_cfg = None


def _full_precision(cfg: Config) -> None:
    """Train in full precision, as half precision needs a GPU."""
    if bare(cfg.optim_wrapper.get('type')) == 'AmpOptimWrapper':
        cfg.optim_wrapper.type = 'OptimWrapper'
        for key in ('loss_scale', 'dtype', 'use_fp16_params'):
            cfg.optim_wrapper.pop(key, None)


def _one_epoch(cfg: Config, name: str) -> None:
    cfg.train_cfg.update(max_epochs=1, val_interval=1)
    cfg.train_cfg.pop('val_begin', None)
    cfg.default_hooks.logger.interval = 1
    cfg.log_level = 'WARNING'
    # The runner names its logger, hub and visualizer after the experiment. Several runners of one
    # process must not share them.
    cfg.experiment_name = f'{name}-{uuid.uuid4().hex[:8]}'
    cfg.visualizer.pop('name', None)


def _shrink_everywhere(cfg: Config, num_classes: int) -> None:
    for part in _dicts_with(cfg, 'num_classes'):
        part.num_classes = num_classes
    _drop_pretrained(cfg)
    for part in _dicts_with(cfg, 'scale'):
        # A resize that does not keep the ratio feeds a network of a fixed input size.
        if bare(part.get('type')).endswith('Resize') and part.get('keep_ratio', False):
            part.scale = SCALE
    _shrink_mosaics(cfg)
    for part in _dicts_with(cfg, 'times'):
        part.times = 1
    # An untrained network has low scores, and boxes without area.
    for key, least in (('score_thr', 0.0), ('min_score', 0.0), ('min_bbox_size', -1)):
        for part in _dicts_with(cfg, key):
            part[key] = least
    for key, most in (('nms_pre', 100), ('max_per_img', 50), ('fc_out_channels', 64)):
        for part in _dicts_with(cfg, key):
            part[key] = min(part[key], most)


def _shrink_mosaics(cfg: Config) -> None:
    """Give mosaics the small size, and the affine maps that take their middle."""
    for part in _of_types(cfg, 'Mosaic'):
        part.img_scale = SCALE
    for part in _of_types(cfg, 'RandomAffine'):
        if 'border' in part:
            part.border = tuple(-side // 2 for side in SCALE)


def _proposals(root: Path, part: str) -> Path:
    """Return the file of windows that stand for proposals, made where it is absent."""
    path = root / 'proposals' / f'{part}.pkl'
    if not path.exists():
        ann_file = root / 'annotations' / f'instances_{part}.json'
        found = find_proposals(ann_file, root / 'images' / part, grid_windows)
        write_proposals(found.boxes, path)
    return path


def _narrow(model: Any) -> None:
    """Give a ResNet, and the neck and heads behind it, a quarter of their channels."""
    if bare(model.backbone.type) != 'ResNet' or model.get('neck') is None:
        return
    model.backbone.base_channels = model.backbone.get('base_channels', 64) // NARROWER
    widths = model.neck.in_channels
    model.neck.in_channels = (
        widths // NARROWER
        if isinstance(widths, int)
        else type(widths)(width // NARROWER for width in widths)
    )
    for key in WIDTHS:
        for part in _dicts_with(model, key):
            if part[key] == FPN_WIDTH:
                part[key] //= NARROWER


def _class_names(path: Path) -> tuple[str, ...]:
    content = json.loads(path.read_text(encoding='utf-8'))
    return tuple(category['name'] for category in content['categories'])


def _dicts_with(node: Any, key: str) -> Iterator[Any]:
    """Yield all dicts of a config, at any depth, that have the key."""
    if isinstance(node, Config):
        node = node._cfg_dict
    if isinstance(node, dict):
        if key in node:
            yield node
        children = list(node.values())
    else:
        children = list(node) if isinstance(node, (list, tuple)) else []
    for child in children:
        yield from _dicts_with(child, key)


def named_types(node: Any) -> set[str]:
    """Return the names, without scope and path, of our types in a config."""
    kinds = [part['type'] for part in _dicts_with(node, 'type')]
    paths = [
        f'{kind.__module__}.{kind.__name__}' if isinstance(kind, type) else kind for kind in kinds
    ]
    return {bare(path) for path in paths if str(path).startswith('mmdet_ext.')}


def bare(kind: Any) -> str:
    """Return the name of a type, a class or a text, without its scope or path."""
    return str(getattr(kind, '__name__', kind)).rpartition('.')[2]


def _of_types(node: Any, *names: str) -> list[Any]:
    """List all dicts whose type, without its scope or path, is one of the names."""
    return [part for part in _dicts_with(node, 'type') if bare(part['type']) in names]
