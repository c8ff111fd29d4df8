"""Sign-ins: the tokens of somebody who has signed in, where they are kept, and how they go on."""
