"""The common parts of the commands: parsing, help, errors in one line, progress bars, and loading of the model."""
