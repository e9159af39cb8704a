"""Readers, checks and makers of data on the disk; nothing here imports torch or a host."""
