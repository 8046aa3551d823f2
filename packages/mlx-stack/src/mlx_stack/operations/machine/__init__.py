"""The machine this runs on, or another that was asked about."""
