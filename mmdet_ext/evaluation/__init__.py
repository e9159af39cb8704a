"""Evaluation of detections from columns: COCO's and LVIS's protocol by three backends, VOC's.

No module here knows a host. Ground truth and detections are arrays, one row per box
(``columns``); a backend takes them with a protocol (``protocol``) and returns the tables of
precision and recall, from which figures are read. ``running`` gives the work to a process of its
own, with a limit of time.
"""
