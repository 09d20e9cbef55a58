"""What the commands share: flags, help, errors in one line, progress bars, and finding and loading the model."""
