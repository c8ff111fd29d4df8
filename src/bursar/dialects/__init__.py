"""Other services' APIs, spoken so that their clients run unchanged.

They translate and decide nothing: their request, our use case, their answer.
"""
