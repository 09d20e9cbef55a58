"""One module per command: its flags and the library call that they control. Only scripts import a command."""
