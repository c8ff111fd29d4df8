"""The data plane's HTTP side: forward a call upstream, meter what comes back, answer the caller."""
