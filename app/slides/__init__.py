"""Big images, and what is kept of them."""
