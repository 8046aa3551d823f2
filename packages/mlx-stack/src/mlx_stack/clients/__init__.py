"""Configuration of the programs that talk to the gateway."""
