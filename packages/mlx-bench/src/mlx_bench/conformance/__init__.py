"""Whether a server speaks OpenAI's, Anthropic's and Ollama's APIs as their clients need it.

A table of small requests, each with what a right answer is. The model has to follow simple orders,
so that an answer is known before it is asked for.
"""
