"""Reader of SentencePiece vocabularies."""
