"""This machine: what it is, what it has, how fast it is, and whether llama.cpp works on it. Loads no native library.

identity           name and instruction sets of the CPU; what records of measurements are kept under
cores, cgroups     cores that this process may use, and limits that containers set
trial/             llama.cpp tried in a child process before a model of the user's meets it
measuring_process  child processes that measure
cpu_tuning         threads and batch sizes, measured
encoder_precision  the vision encoder's speed by storage type, measured
roofline           operations and bytes a second, measured
device_speed       the same of any device, as ranges
typical_devices    what devices that nobody measured can be expected to do
"""
