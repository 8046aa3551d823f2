"""The Hub: what the environment says of it, and the one client that asks it."""
