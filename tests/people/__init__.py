"""How people sign in, what they may do, and how they come and go."""
