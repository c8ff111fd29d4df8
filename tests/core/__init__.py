"""Pure rules, held by tables and by properties over generated values."""
