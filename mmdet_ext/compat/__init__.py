"""Safe reading of checkpoints, those of MMEngine and those of other projects.

Importing this package makes the checkpoints of MMEngine load in the whole process, with
``weights_only=True``: see :mod:`mmdet_ext.compat.checkpoint`. The registry of mmdet_ext imports it
when one of its types is built for the first time. Import it yourself where a checkpoint is opened
before that, as ``DetInferencer`` does; in a config::

    custom_imports = dict(imports=['mmdet_ext.compat'], allow_failed_imports=False)

Where weights that MMEngine loads do not fit the model, it adds the missing and unexpected names in
groups to MMEngine's list of them: see :mod:`mmdet_ext.compat.load_report`.

It imports no detector and registers nothing. Importing it again changes nothing, and before torch
2.6, which loads everything by default, the loader is MMEngine's.
"""

from mmdet_ext.utils.families import check_families

try:
    check_families()
    from mmdet_ext.compat.checkpoint import install_safe_loading
    from mmdet_ext.compat.load_report import install_load_report
except ModuleNotFoundError as error:
    if error.name not in ('mmengine', 'torch'):
        raise
    advice = {
        'torch': '`pip install torch`',
        'mmengine': "`pip install 'mmengine>=0.10.4,<1'` for OpenMMLab's own packages, or `pip "
        'install onedl-mmengine` for the maintained forks; an environment holds one of the two',
    }
    raise ModuleNotFoundError(
        f'mmdet_ext needs {error.name}, which is not installed: {advice[error.name]}',
        name=error.name,
    ) from error

__all__ = ['install_load_report', 'install_safe_loading']

install_safe_loading()
install_load_report()
