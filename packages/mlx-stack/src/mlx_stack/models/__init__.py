"""Models: what a name means, downloading, what lies on this disk."""
