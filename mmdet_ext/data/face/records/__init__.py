"""Files of records: MXNet's RecordIO (`binary`, `container`) and InsightFace's faces (`faces`)."""

from mmdet_ext.data.face.records.binary import (
    MAGIC,
    Record,
    RecordError,
    encode,
    pack,
    unpack,
    write_records,
)
from mmdet_ext.data.face.records.container import (
    EXACT_FLOAT,
    PROBLEMS,
    Headers,
    RecordFile,
    read_index,
)
from mmdet_ext.data.face.records.faces import (
    FaceRecords,
    read_face_records,
    read_property,
    write_face_records,
)
from mmdet_ext.data.images import decode_image

__all__ = [
    'EXACT_FLOAT',
    'MAGIC',
    'PROBLEMS',
    'FaceRecords',
    'Headers',
    'Record',
    'RecordError',
    'RecordFile',
    'decode_image',
    'encode',
    'pack',
    'read_face_records',
    'read_index',
    'read_property',
    'unpack',
    'write_face_records',
    'write_records',
]
