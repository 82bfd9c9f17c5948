"""Manifests, segmentation, recognition backends, filters, split and batching."""
