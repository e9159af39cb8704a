"""Safe reading of checkpoints, those of MMEngine and those of other projects.

Importing this package makes the checkpoints of MMEngine load in the whole process, with
``weights_only=True``: see :mod:`mmdet_ext.compat.checkpoint`. The registry of mmdet_ext imports it
when one of its types is built for the first time. Import it yourself where a checkpoint is opened
before that, as ``DetInferencer`` does; in a config::

    custom_imports = dict(imports=['mmdet_ext.compat'], allow_failed_imports=False)

It imports no detector and registers nothing. Importing it again changes nothing.
"""

from mmdet_ext.compat.checkpoint import install_safe_loading

__all__ = ['install_safe_loading']

install_safe_loading()
