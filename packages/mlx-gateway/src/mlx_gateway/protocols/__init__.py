"""The APIs that clients speak, and what engines get wrong in each: one module an API.

A repair is one small function with its symptom in the docstring. Requests are repaired before they
go to an engine, answers and events on their way back; what needs no repair passes as it came.

(decision 0003)
"""
