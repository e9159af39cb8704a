"""Faces: margin heads, metric learning, data, backbones and open-set evaluation."""
