"""Programs that behave like what a Linux machine lacks: engines, the Hub, macOS tools."""
