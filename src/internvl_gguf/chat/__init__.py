"""The chat at a terminal: lines and their pictures, commands, answers as they stream; no command line in here.

    reader  ->  loop: a line  ->  command_table, commands     ->  chat: the conversation, its model, what waits
                              ->  typed_line: its pictures    ->  asking: one question, in the worker's thread
                                                              ->  terminal/: the screen, pictures in it, the clipboard

Everything but `editor` and `terminal.terminal_screen` works without a terminal.
"""
