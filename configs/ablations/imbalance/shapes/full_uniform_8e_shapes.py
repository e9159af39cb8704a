# Where most images have all classes: 6 to 20 shapes in each. All images are drawn alike.
_base_ = '../../_base_/half_atss_8e_shapes.py'
