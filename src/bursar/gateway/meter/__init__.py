"""From what an upstream reports to what a call costs."""
