"""`internvl bench`: what a quant costs in quality, and what it saves in memory and time, with pictures.

targets, pairs, fitting    which files are compared
settings, plan             with which settings, in which order
runner, entry_run          one child process after another (process, child, jobs), and what is known already (store)
speed, peak_memory         what is measured in the child; quality/: what a quant loses
results                    what was measured; report/: its tables, charts and files
    plain_json                 dataclasses as lines between processes and in files
"""
