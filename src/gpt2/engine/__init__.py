"""The engine: token ids in, token ids out. Backends compute the model, a batch decides what they compute."""
