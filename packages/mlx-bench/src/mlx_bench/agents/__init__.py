"""Agents at work: conversations that grow by tool results, several at once."""
