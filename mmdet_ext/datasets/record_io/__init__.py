"""Files of records: MXNet's RecordIO (`container`) and InsightFace's faces in it (`faces`)."""

from mmdet_ext.datasets.record_io.container import (
    EXACT_FLOAT,
    MAGIC,
    PROBLEMS,
    Headers,
    Record,
    RecordError,
    RecordFile,
    encode,
    pack,
    read_index,
    unpack,
    write_records,
)
from mmdet_ext.datasets.record_io.faces import (
    FaceRecords,
    decode_picture,
    read_face_records,
    read_property,
    write_face_records,
)

__all__ = [
    'EXACT_FLOAT', 'MAGIC', 'PROBLEMS', 'FaceRecords', 'Headers', 'Record', 'RecordError',
    'RecordFile', 'decode_picture', 'encode', 'pack', 'read_face_records', 'read_index',
    'read_property', 'unpack', 'write_face_records', 'write_records',
]
