"""Eight virtual CPU devices for every test, before JAX starts."""

import hypothesis
import jax

jax.config.update("jax_num_cpu_devices", 8)

hypothesis.settings.register_profile("ci", deadline=None, derandomize=True, max_examples=25)
hypothesis.settings.load_profile("ci")
