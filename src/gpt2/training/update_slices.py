"""Sizes of the slices in which an update is computed; the memory estimate needs them without TensorFlow."""

LOGIT_ROWS = 1024  # rows of logits in memory at once
QUERY_ROWS = 256  # queries in a slice of attention, which computes no scores for keys after the slice's end
