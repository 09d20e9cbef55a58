"""transformer-lm's `lm`: programs that begin with `import lm.inference as lmi` run unchanged, on the engine."""
