"""helix_jax"""
