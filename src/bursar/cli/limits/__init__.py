"""Commands about limits: allowances, plans and explanations."""
