"""Who may do what: grants, tokens, cookies, and the checks of where a request comes from."""
