"""What fits and how fast, and the stack that is made of it."""
