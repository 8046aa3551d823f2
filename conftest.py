"""What holds for every package's tests."""

from hypothesis import settings

# whether a property holds does not depend on how busy the machine is
settings.register_profile("any-machine", deadline=None)
settings.load_profile("any-machine")
