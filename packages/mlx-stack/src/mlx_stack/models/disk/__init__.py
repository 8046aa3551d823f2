"""Models on disk: finding, verifying, removing."""
