"""The engine, which extends sequences of token ids.

Backends compute the model, and a batch selects the ids that they compute.
"""
