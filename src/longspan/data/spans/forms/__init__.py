"""How files hold questions: one file a form."""
