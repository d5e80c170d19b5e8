"""What a person gives: files and rows, pictures, prompts, and the views that change them."""
