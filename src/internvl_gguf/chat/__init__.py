"""The chat at a terminal: lines with pictures, slash commands, streamed answers. `cli` parses the command line.

    reader  ->  loop: a line  ->  command_table, commands     ->  chat: conversation, model, pictures to be sent
                              ->  typed_line: its pictures    ->  show_answer: one question, in the background thread
                                                              ->  terminal/: the screen, pictures in it, the clipboard

Everything but `editor` and `terminal.terminal_screen` works without a terminal.
"""
