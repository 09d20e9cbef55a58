"""Reader of models of lopuhin/transformer-lm."""
