"""transformer-lm's package `lm`: programs that start with `import lm.inference as lmi` run unchanged on the engine."""
