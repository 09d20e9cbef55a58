"""Models of lopuhin/transformer-lm."""
