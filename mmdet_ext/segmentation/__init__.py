"""Parts for semantic segmentation, for runs of MMSegmentation, which none of them imports."""
