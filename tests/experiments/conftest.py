"""What several files of tests share: a run of the command line that nothing disturbed."""

import pytest

from run_commands import QUICK, run


@pytest.fixture(scope="session")
def undisturbed(tmp_path_factory):
    directory = tmp_path_factory.mktemp("undisturbed") / "run"
    done = run(*QUICK, "--run-dir", directory)
    assert done.returncode == 0, done.stderr
    return directory
