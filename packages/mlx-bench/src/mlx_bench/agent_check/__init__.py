"""Whether a model, as a server serves it, is fit for agents: tools, structure, the same answers.

The cases of `conformance` test the server, with a model that says what it is told. These test both
together, with questions that any model for agents must get right.
"""
