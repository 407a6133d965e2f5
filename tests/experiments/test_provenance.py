"""What is told of where numbers come from."""

import shutil
import subprocess

import jax
import pytest

from experiments import provenance


def git(folder, *arguments):
    done = subprocess.run(
        ["git", "-C", str(folder), "-c", "user.name=a", "-c", "user.email=a@b.c", *arguments],
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout.strip()


@pytest.mark.skipif(shutil.which("git") is None, reason="git is not installed")
def test_revision_is_the_commit_and_whether_code_has_changed(tmp_path):
    def found():
        provenance.revision.cache_clear()
        return provenance.revision(tmp_path)

    for name in ("dsink_jax", "experiments", "results"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "file").write_text("1")
    assert found() == ""
    git(tmp_path, "init", "-q")
    assert found() == ""  # no commit yet
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "-qm", "first")
    commit = f"+g{git(tmp_path, 'rev-parse', 'HEAD')[:10]}"
    assert found() == commit
    (tmp_path / "results" / "file").write_text("2")
    assert found() == commit  # results are no code
    (tmp_path / "experiments" / "file").write_text("2")
    assert found() == f"{commit}.changed"
    provenance.revision.cache_clear()


def test_versions_and_device_are_named():
    found = provenance.versions("pytest", "no-such-package")
    assert found["pytest"] == pytest.__version__ and found["no-such-package"] == "not installed"
    assert found["jax"] == jax.__version__
    assert found["dsink-jax"].partition("+")[0] == "0.1.0"
    assert "pytest" not in provenance.versions_in_words()
    described = provenance.device_description(jax.local_devices())
    assert described.startswith(f"{jax.local_device_count()} x cpu (") and described.endswith(" cores)")
