"""What a network is trained on: splits into training and evaluation, scaling, and what leaks from one part to the other."""
