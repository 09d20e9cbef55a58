"""Models in Hugging Face's layout: config.json, tokenizer and safetensors or PyTorch files."""
