"""No command asks the network for anything: every name that it or a converter looks up would be seen."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from dots import two_stages
from slimwright.graph import save_net

RUNTIMES = ("onnxruntime", "openvino")  # which report their use to their makers unless that is switched off
CONVERTS_AND_RUNS = """
import sys
from pathlib import Path
import torch
from slimwright.graph import load_net
from slimwright.runtimes import convert
from slimwright.targets import Effort, Local, measure

net = load_net(Path("net"))
for runtime in sys.argv[1:]:
    made = convert(net, runtime, "fp32", Path(runtime))
    inputs = [torch.zeros(2, *net.input.shape[1:])]
    assert measure(Local(), {"one": made}, Effort(), inputs=inputs)["one"].outputs
    print(runtime)
"""
# Stands before the system's resolver in every process that a command starts: it notes each name, and finds none.
RESOLVER = """
#include <fcntl.h>
#include <netdb.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static void note(const char *name) {
    int file = open(getenv("LOOKED_UP"), O_WRONLY | O_CREAT | O_APPEND, 0600);
    char line[600];
    int length = snprintf(line, sizeof line, "%s\\n", name ? name : "(null)");
    if (file >= 0) { if (write(file, line, length) < 0) {} close(file); }
}
int getaddrinfo(const char *name, const char *service, const struct addrinfo *hints, struct addrinfo **found) {
    note(name);
    return EAI_NONAME;
}
struct hostent *gethostbyname(const char *name) { note(name); return 0; }
struct hostent *gethostbyname2(const char *name, int family) { note(name); return 0; }
int gethostbyname_r(const char *name, struct hostent *a, char *b, size_t c, struct hostent **found, int *error) {
    note(name);
    *found = 0;
    *error = HOST_NOT_FOUND;
    return HOST_NOT_FOUND;
}
"""


@pytest.fixture(scope="module")
def resolver(tmp_path_factory: pytest.TempPathFactory) -> Path:
    compiler = shutil.which("gcc") or shutil.which("cc")
    if not sys.platform.startswith("linux") or compiler is None:
        pytest.skip("a resolver of our own needs Linux and a C compiler")
    folder = tmp_path_factory.mktemp("resolver")
    (folder / "resolver.c").write_text(RESOLVER)
    made = folder / "resolver.so"
    subprocess.run([compiler, "-shared", "-fPIC", "-o", made, folder / "resolver.c"], check=True)
    return made


def looked_up(resolver: Path, home: Path, *command: str) -> tuple[list[str], str]:
    """The names that a command and its children look up, and what it prints."""
    names = home / "names"
    names.unlink(missing_ok=True)
    surroundings = dict(
        os.environ, LD_PRELOAD=str(resolver), LOOKED_UP=str(names), SLIMWRIGHT_CACHE=str(home / "cache")
    )
    done = subprocess.run([sys.executable, *command], cwd=home, env=surroundings, capture_output=True, text=True)
    assert done.returncode in (0, 1), done.stderr
    return names.read_text().split() if names.exists() else [], done.stdout


def test_a_name_that_is_looked_up_is_seen(resolver: Path, tmp_path: Path) -> None:
    program = "import socket\ntry: socket.getaddrinfo('example.org', 80)\nexcept socket.gaierror: pass"
    assert looked_up(resolver, tmp_path, "-c", program)[0] == ["example.org"]


@pytest.mark.slow
def test_neither_converters_nor_runtimes_look_a_name_up(resolver: Path, tmp_path: Path) -> None:
    save_net(two_stages(), tmp_path / "net")
    names, said = looked_up(resolver, tmp_path, "-c", CONVERTS_AND_RUNS, *RUNTIMES)
    assert not names and said.split() == [*RUNTIMES]
