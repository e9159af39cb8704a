"""Class centres split over the processes of a distributed training."""
