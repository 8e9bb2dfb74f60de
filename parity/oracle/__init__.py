"""The outside oracle: both twins against the classes of Hugging Face transformers."""
