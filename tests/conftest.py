"""Settings for all tests: property tests that a slow, shared machine does not fail."""

from hypothesis import settings

settings.register_profile("mixup", max_examples=20, deadline=None)
settings.load_profile("mixup")
