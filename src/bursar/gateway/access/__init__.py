"""What a key may reach through the gateway, and with which labels its calls are charged."""
