"""Metering: what is used beside calls of models, and sums by product and meter."""
