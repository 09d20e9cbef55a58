"""How much of a batch an update computes at once. The memory estimate needs these sizes without TensorFlow."""

LOGIT_ROWS = 1024  # rows of logits in memory at once
QUERY_ROWS = 256  # queries in a slice of attention, which computes no scores for keys after the slice's end
