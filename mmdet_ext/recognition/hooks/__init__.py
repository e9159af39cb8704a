"""Hooks: schedules of margin and scale, pictures of 2-D features."""
