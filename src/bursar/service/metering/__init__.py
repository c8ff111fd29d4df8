"""Metering: use that did not come through the gateway, reported by whoever saw it."""
