"""Questions whose answers are spans of a context.

question    what a question is, and whether its answers stand where they are said to
form        how files hold them; one file a form in `forms`
config      which questions: the `data` section of the task that finds spans
windows     questions and contexts as token ids, whole or in windows that overlap
"""
