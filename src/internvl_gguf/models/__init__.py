"""Resolve a model name to files on this disk.

names         parse NAME:QUANT, OWNER/REPO:QUANT, paths and `demo`
catalog       the shipped models.toml merged with the user's
select_files  select the named files of a repository or folder, or the best ones
local_files   models under a path, and the demo model
hub_resolver  select, check and download models of the hub
network       proxies and certificates of the environment, for any HTTP client
hub/          the only user of huggingface_hub
resolve       all of the above in one call
listing       list the quants of a model
suggest       complete a partly typed model name
toml_tables              read a user's TOML file; errors name the place
"""
