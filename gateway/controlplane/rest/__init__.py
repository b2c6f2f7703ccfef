"""The management listener: routes, who may use them, and what each answers."""
