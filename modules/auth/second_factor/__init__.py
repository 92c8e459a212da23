"""The second factor (TOTP, RFC 6238) with its recovery codes, and the fresh proof that dangerous actions ask for."""
