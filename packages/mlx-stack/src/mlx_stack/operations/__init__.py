"""What the commands do; each returns a value and prints nothing."""
