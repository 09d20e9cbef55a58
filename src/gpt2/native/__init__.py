"""The decode step as one TensorFlow op in C++, for CPUs: read once, kept in cache, no overhead between the products.

Optional: where there is no compiler, `gpt2.decoder` does the same with TensorFlow alone.
"""
