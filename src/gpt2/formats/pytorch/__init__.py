"""Reader of files that torch.save wrote, without PyTorch."""
