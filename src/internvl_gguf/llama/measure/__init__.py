"""Child processes that measure llama.cpp on this machine; `hardware` starts them and keeps what they print.

kernels   matrix products and attention of llama.cpp's own kernels, timed
timing    time runs, discarding samples that other programs disturbed
rates     measure operations and bytes a second of each device
threads   measure thread counts and batch sizes
encoder   measure the vision encoder by storage type
"""
