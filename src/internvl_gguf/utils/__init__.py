"""What every room needs and none owns.

arguments     checks of arguments from outside
kinds         what values an option takes, from Python, from files and typed
atomic_write  files written whole or not at all
notices       lines for people, on the log
options       an option, declared once
owned         what is closed when its owner is dropped
paths         where files lie
process_end   how a child process ended, in words
records       every record and folder that is kept, declared once
safe_text     text that a terminal shows and does not obey
sizes         bytes in words and back
text_data     text files and JSON, whatever is wrong with them
"""
