"""The commands, one module each: the command's flags and the library call that they control.

Only scripts import a command.
"""
