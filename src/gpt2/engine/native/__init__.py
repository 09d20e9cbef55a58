"""A prefill or a decode step as one call of a library in C++, for CPUs: every weight is read once per call.

The library is optional: without a compiler, `engine.tensorflow` computes the same with TensorFlow alone.
"""
