"""Web page to enrol people and to search for their faces; it needs the extra ``page`` (Gradio).

`FaceDesk` does the work, without Gradio; `mmdet_ext.face.page.server.PageServer` serves it. The
page serves this machine alone unless another address is asked for, and loads nothing from
elsewhere. Photos are deleted after the request that brought them: only embeddings are kept.
"""

import os

from mmdet_ext.face.page.desk import ConsentError, FaceDesk
from mmdet_ext.face.page.uploads import Limits, RefusedImageError, read_upload

__all__ = ['ConsentError', 'FaceDesk', 'Limits', 'RefusedImageError', 'read_upload']

# Read when Gradio is imported, which only the modules below this package do.
os.environ.update(
    GRADIO_ANALYTICS_ENABLED='False',
    GRADIO_RUN_HISTORY='False',
    HF_HUB_DISABLE_TELEMETRY='1',
    DO_NOT_TRACK='1',
)
