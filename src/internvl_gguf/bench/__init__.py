"""`internvl bench`: compare quants by their quality, memory and speed, with pictures.

targets, pairs, fitting    which files are compared
sweep, benchmark_plan      with which settings, in which order
runner, measured_run       one child process after another (process, child, jobs); results of earlier runs (store, keys)
speed, peak_memory         what the child measures; quality/: what a quant loses
cascade/                   when a bigger model is to be asked after a smaller one
results                    the measured values; report/: their tables, charts and files
    plain_json                 dataclasses as lines between processes and in files
"""
