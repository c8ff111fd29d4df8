"""The clients through which model servers are called, behind one port."""
