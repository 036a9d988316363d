"""Models on real RPC servers over loopback: `make test-rpc`."""
