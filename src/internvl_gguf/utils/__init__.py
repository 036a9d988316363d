"""Helpers that every other package may use.

arguments      checks of arguments from callers
atomic_write   atomic writes of files
child_process  child processes that run native code
json_words     messages about forms for those who write JSON
kinds          kinds of option values, from Python, from files and typed
notices        notices to the user, on the log
options        declaration of an option, in one place
owned          base class of objects that belong to one process
paths          the folders for caches, settings and data
process_end    description of how a child process ended
records        all records and folders in the cache, declared once
safe_text      text without terminal control characters
sizes          sizes in bytes, parsed and formatted
text_data      decoding of text files
"""
