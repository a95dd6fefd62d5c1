"""Networks: encoders, shared backbones, fusion, and Dynamic Sharing, which joins them."""
