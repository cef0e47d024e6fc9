"""Measurements that need a CUDA GPU; run by hand, their results are committed."""
