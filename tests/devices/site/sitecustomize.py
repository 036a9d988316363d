"""Registers RPC servers in a Python process before anything else runs; see `tests.devices.servers.environment`."""

import os
import sys

if os.environ.get("TEST_RPC_PROGRAM") in sys.orig_argv:
    from tests.devices.servers import register

    register(os.environ["TEST_RPC_SERVERS"].split(","))
