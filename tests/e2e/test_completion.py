"""Shell completion and the manual page: what the shells offer is what the program knows."""

import shutil
import subprocess

import pytest

import harness
from harness import run_cli
from test_cli import verbs


def script(box, shell):
    file = box.dir / f"didact.{shell}"
    file.write_text(run_cli("completion", shell).out)
    return file


def run_shell(box, shell, code, *argv):
    """Runs with our didact first in PATH and a home of its own."""
    env = {"PATH": f"{harness.BIN}:/usr/bin:/bin", "HOME": str(box.dir), "DIDACT_HOME": str(box.dir / "none")}
    done = subprocess.run([shell, "-c", code, *map(str, argv)], capture_output=True, text=True, timeout=30 * harness.SLOW, env=env)
    assert done.returncode == 0 and not done.stderr, done.stderr[:2000]
    return done.stdout.split("\n")


def bash(box, *words):
    code = ('f=$1; shift; source "$f"; COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); _didact; printf "%s\\n" "${COMPREPLY[@]}"')
    return [w for w in run_shell(box, "bash", code, "-", script(box, "bash"), *words) if w]


def test_bash_offers_verbs_flags_and_jobs(box, load, submit):
    every = {name.split()[0] for name in verbs()}
    assert every <= set(bash(box, "didact", "")), "a verb of the program that bash does not offer"
    assert bash(box, "didact", "exte") == ["extend"]
    assert set(bash(box, "didact", "dataset", "")) == {"import", "list", "show", "export"}
    assert bash(box, "didact", "best", "3", "--pa") == ["--pareto"]
    assert bash(box, "didact", "dataset", "import", "--na") == ["--name"]
    d = load(box.coordinator(folder=box.dir / "none"))
    submit(d, name="fine-search", budget={"trials": 3})
    assert bash(box, "didact", "why", "fi") == ["fine-search"]


def test_fish_offers_verbs_flags_and_jobs(box, load, submit):
    if not shutil.which("fish"):
        pytest.skip("fish is not here: deploy/install-deps.sh --test")
    file = script(box, "fish")

    def fish(line):
        out = run_shell(box, "fish", "source $argv[1]; complete -C $argv[2]", file, line)
        return [w.split("\t")[0] for w in out if w]
    every = {name.split()[0] for name in verbs()}
    assert every <= set(fish("didact "))
    assert fish("didact exte") == ["extend"]
    assert set(fish("didact dataset ")) == {"import", "list", "show", "export"}
    assert fish("didact best 3 --pa") == ["--pareto"] and fish("didact jobs --pa") == []
    d = load(box.coordinator(folder=box.dir / "none"))
    submit(d, name="fine-search", budget={"trials": 3})
    assert fish("didact why ") == ["1"]


def test_zsh_reads_its_script(box):
    if not shutil.which("zsh"):
        pytest.skip("zsh is not here: deploy/install-deps.sh --test")
    done = subprocess.run(["zsh", "-n", script(box, "zsh")], capture_output=True, text=True, timeout=30)
    assert done.returncode == 0 and not done.stderr, done.stderr
    text = (box.dir / "didact.zsh").read_text()
    assert text.startswith("#compdef didact") and all(name.split()[0] in text for name in verbs())
    r = run_cli("completion", "tcsh")
    assert r.status == 64 and "bash, zsh or fish" in r.err


@pytest.mark.limit(300)
def test_make_install_puts_everything_in_place(box):
    done = subprocess.run(["make", "-s", f"VARIANT={harness.BIN.name}", f"DESTDIR={box.dir}/", "PREFIX=usr", "install"], cwd=harness.ROOT,
                          capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    share = box.dir / "usr" / "share"
    page = (share / "man/man1/didact.1").read_text()
    assert page.startswith(".TH DIDACT 1") and page.isascii() and "JOB\\[u2026]" in page
    for name in verbs():
        assert f".SS {name}".replace("-", "\\-") in page, name
    for shell, file in (("bash", "bash-completion/completions/didact"), ("zsh", "zsh/site-functions/_didact"),
                        ("fish", "fish/vendor_completions.d/didact.fish")):
        assert (share / file).read_text() == run_cli("completion", shell).out
    assert (box.dir / "usr/bin/didactd").exists() and (share / "didact/jobs").is_dir()
