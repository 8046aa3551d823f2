"""What every command stands in: how it is found, run, printed and failed."""
