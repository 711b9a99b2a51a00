"""Multiple choice: questions, prompts, answers read out of texts, and what many of them show."""
