"""Networks: backbones, the weights they start from, heads, and the bundle a trained one is kept in."""
