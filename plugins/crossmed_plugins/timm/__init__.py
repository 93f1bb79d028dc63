"""Image classifiers of timm."""
