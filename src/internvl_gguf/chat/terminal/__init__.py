"""The screens of the chat, for a terminal, a screen reader or a script, and what a terminal can be given.

screen            the screen as the chat knows it, and the plain one
terminal_screen   answers as they stream: live_area (what is redrawn), markdown_view, markdown_blocks
preview           pictures in the terminal: kitty, iTerm2, sixel
clipboard         pictures and text from the system's clipboard
"""
