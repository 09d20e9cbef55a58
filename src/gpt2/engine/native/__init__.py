"""Prefill and decode step as one call of a library in C++, for CPUs: every weight is read once, and nothing waits.

Optional: where there is no compiler, `engine.tensorflow` does the same with TensorFlow alone.
"""
