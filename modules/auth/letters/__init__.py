"""Letters: e-mail with a link or code that shows whose an address is, and notices of what was done with an account."""
