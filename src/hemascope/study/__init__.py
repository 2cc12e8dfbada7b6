"""Many runs as one question: variants times seeds, what is finished kept, one table at the end."""
