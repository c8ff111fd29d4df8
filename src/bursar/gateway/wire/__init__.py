"""What is read from requests and written into answers: OpenAI's shapes, and nothing else."""
