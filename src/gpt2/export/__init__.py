"""Export of models to the formats of other programs; each is read back and compared before it gets its name."""
