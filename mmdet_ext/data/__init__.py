"""Data tools that need no OpenMMLab package: VOC conversion, synthetic shapes, picture checks."""
