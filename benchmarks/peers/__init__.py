"""What agentrq is measured against: each the best honest version of itself, in as few lines as it takes."""
