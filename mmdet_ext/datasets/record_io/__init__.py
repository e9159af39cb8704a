"""Files of records: MXNet's RecordIO (`layout`, `container`) and InsightFace's faces (`faces`)."""

from mmdet_ext.datasets.images import decode_picture
from mmdet_ext.datasets.record_io.container import (
    EXACT_FLOAT,
    PROBLEMS,
    Headers,
    RecordFile,
    read_index,
)
from mmdet_ext.datasets.record_io.faces import (
    FaceRecords,
    read_face_records,
    read_property,
    write_face_records,
)
from mmdet_ext.datasets.record_io.layout import (
    MAGIC,
    Record,
    RecordError,
    encode,
    pack,
    unpack,
    write_records,
)

__all__ = [
    'EXACT_FLOAT', 'MAGIC', 'PROBLEMS', 'FaceRecords', 'Headers', 'Record', 'RecordError',
    'RecordFile', 'decode_picture', 'encode', 'pack', 'read_face_records', 'read_index',
    'read_property', 'unpack', 'write_face_records', 'write_records',
]
