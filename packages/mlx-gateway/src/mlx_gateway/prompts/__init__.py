"""What makes a turn of a conversation cheap or dear: prompts whose beginning stays the same."""
