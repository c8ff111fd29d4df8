"""Bursar measured against a bare proxy and nginx, as ratios within one run (`make bench`)."""
