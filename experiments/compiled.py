"""Compiled programs kept on disk: trainings of one study share most of theirs."""

import pathlib

import jax


def keep_compiled(directory: str | pathlib.Path) -> None:
    """Keeps compiled programs in a folder, unless the person has a place for them."""
    if jax.config.jax_compilation_cache_dir is None:
        jax.config.update("jax_compilation_cache_dir", str(directory))
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.1)
