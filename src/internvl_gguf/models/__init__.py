"""From what a user types to files on this disk.

names         NAME:QUANT, OWNER/REPO:QUANT, paths and `demo`, taken apart
catalog       models.toml, and the user's own beside it
select_files  which files of a repository or folder are meant, or are best
local_files   models under a path, and the demo model
hub_resolver  models of the hub: selected, checked, fetched
hub/          the only user of huggingface_hub
resolve       all of that in one call
listing       the quants of a model
suggest       names to choose from while one is typed
toml_tables, toml_lines  a user's TOML file read, its mistakes told with their line
"""
