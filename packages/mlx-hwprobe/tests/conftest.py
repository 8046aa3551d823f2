"""Hypothesis without its deadline: on a busy machine a slow example says nothing of the code."""

from hypothesis import settings

settings.register_profile("any-machine", deadline=None)
settings.load_profile("any-machine")
