"""Losses of joint class and quality, and of box distributions."""
