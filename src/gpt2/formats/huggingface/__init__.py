"""Reader of models in Hugging Face's layout: config.json, a tokenizer, and safetensors or PyTorch files."""
