"""Files that torch.save wrote, read without PyTorch."""
