"""Safe reading of checkpoints, those of MMEngine and those of other projects.

Importing this package makes the checkpoints of MMEngine load in the whole process, with
``weights_only=True``: see :mod:`mmdet_ext.compat.checkpoint`. The registry of mmdet_ext imports it
when one of its types is built for the first time. Import it yourself where a checkpoint is opened
before that, as ``DetInferencer`` does; in a config::

    custom_imports = dict(imports=['mmdet_ext.compat'], allow_failed_imports=False)

It imports no detector and registers nothing. Importing it again changes nothing, and before torch
2.6, which loads everything by default, it changes nothing at all.
"""

try:
    from mmdet_ext.compat.checkpoint import install_safe_loading
except ModuleNotFoundError as error:
    if error.name not in ('mmengine', 'torch'):
        raise
    raise ModuleNotFoundError(
        f'mmdet_ext.compat makes the checkpoints of MMEngine load, and {error.name} is not '
        f'installed: `pip install {error.name}`',
        name=error.name,
    ) from error

__all__ = ['install_safe_loading']

install_safe_loading()
