"""Reader of models in GGUF, the file format of llama.cpp."""
