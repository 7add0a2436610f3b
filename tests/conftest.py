"""A strict session on four CPU devices: what would pass by luck on one device or by a cast fails here."""

import os
import tempfile

import jax
import pytest
from hypothesis import settings

# What was measured on this machine decides widths, and these bits.
os.environ["XDG_CACHE_HOME"] = tempfile.mkdtemp()
jax.config.update("jax_num_cpu_devices", 4)
jax.config.update("jax_numpy_rank_promotion", "raise")

# The same examples at every run, and no failing because the machine is busy.
settings.register_profile("steady", derandomize=True, deadline=None, database=None)
settings.load_profile("steady")


@pytest.fixture(scope="module", autouse=True)
def compiled_once(request):
    """What was compiled for one test serves the next, in other processes and sessions too: tests do little else.

    Not for the laws, whose programs are compiled as users have them compiled, nor in processes that tests start.
    """
    if request.path.parent.name == "laws":
        yield
        return
    from jax.experimental.compilation_cache import compilation_cache

    compilation_cache.set_cache_dir(str(request.config.cache.mkdir("compiled")))
    before = jax.config.jax_persistent_cache_min_compile_time_secs
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    compilation_cache.reset_cache()
    yield
    jax.config.update("jax_persistent_cache_min_compile_time_secs", before)
    jax.config.update("jax_compilation_cache_dir", None)
    compilation_cache.reset_cache()


@pytest.fixture
def counted(record_property):
    """Has the end of the session tell of something that was counted."""
    return lambda told: record_property("counted", told)


def pytest_terminal_summary(terminalreporter):
    for report in terminalreporter.stats.get("passed", []):
        for name, told in getattr(report, "user_properties", []):
            if name == "counted":
                terminalreporter.write_line(told)
