"""The native library in C++ for CPUs, which computes a step in one call and reads every weight once per call.

The library is optional: without a compiler, `engine.tensorflow` computes the same with TensorFlow alone.
"""
