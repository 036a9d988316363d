"""This machine: its CPU, its limits, its speed, and whether llama.cpp works on it. Loads no native library.

identity           name and instruction sets of the CPU; the key that measurements are kept under
cores, cgroups     cores that this process may use, and limits that containers set
trial/             check llama.cpp in a child process before it loads a user's model
rpc/               ask ggml RPC servers what they are before the native library connects
cpu_tuning         measure the best thread counts and batch size
encoder_precision  measure the vision encoder's speed by storage type
roofline           measure operations and bytes a second
device_speed       speed of a device as ranges
remote_device      a device of another machine and the network to it, as far as speed depends on them
typical_devices    assumed speeds of devices that were not measured
"""
