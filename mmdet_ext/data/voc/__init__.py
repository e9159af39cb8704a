"""Parts of the reader of Pascal VOC folders: files, lists, xml, frames, reports."""
