"""The common parts of the commands: parsing, help, one-line errors, progress bars and model loading."""
