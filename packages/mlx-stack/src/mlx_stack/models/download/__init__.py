"""Bytes from the Hub into the models folder: resumable, checked, bounded."""
