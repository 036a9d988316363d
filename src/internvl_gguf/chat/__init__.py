"""The chat at a terminal: lines and their pictures, commands, answers as they stream; no command line in here.

    reader  ->  loop: a line  ->  command_table, commands     ->  chat: the conversation, its model, what waits
                              ->  typed_line: its pictures    ->  asking: one question, in the worker's thread
                                                              ->  screen: a terminal, a screen reader, a script

Everything but `editor` and `terminal_screen` works without a terminal.
"""
