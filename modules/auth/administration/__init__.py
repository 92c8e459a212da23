"""What administrators do with the accounts of others: find them, change their role, disable them."""
