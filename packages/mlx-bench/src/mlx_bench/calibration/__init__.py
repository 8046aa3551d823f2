"""A server that emits tokens on an exact schedule, and the check of the instrument against it."""
