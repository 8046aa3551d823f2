"""Models on disk: downloading, verifying, finding."""
