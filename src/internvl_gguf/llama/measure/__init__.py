"""Processes that measure llama.cpp on this machine; `hardware` starts them and keeps what they print.

kernels   matrices of every type, multiplied by llama.cpp's own kernels
timing    samples that other programs did not disturb
rates     operations and bytes a second of each device
threads   threads and batch sizes
encoder   the vision encoder by storage type
"""
