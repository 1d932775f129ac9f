"""Trees of cgroups that are not this machine's, forks, and the budget made of it all."""

from __future__ import annotations

import gc
import os
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest

from streamfeat.memory import probe

V1 = "35 31 0:32 {root} {point} rw,relatime - cgroup cgroup rw,memory\n"
V2 = "41 31 0:38 {root} {point} rw shared:9 - cgroup2 cgroup2 rw,nsdelegate\n"
OTHER = (
    "36 31 0:33 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu\n22 1 8:1 / / rw - ext4 /dev/a rw\n"
)
NO_LIMIT = "9223372036854771712"

Tree = Callable[[str, str, dict[str, str]], Path]


@pytest.fixture
def tree(tmp_path: Path) -> Tree:
    def make(cgroup: str, mountinfo: str, files: dict[str, str]) -> Path:
        texts = {"proc/self/cgroup": cgroup, "proc/self/mountinfo": OTHER + mountinfo, **files}
        for name, text in texts.items():
            path = tmp_path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        return tmp_path

    return make


@pytest.mark.parametrize(
    ("cgroup", "mountinfo", "files", "limit"),
    [
        # A host's tree of version 1, mounted in an unusual place.
        ("4:memory:/a/b\n", V1.format(root="/", point="/cg/mem"),
         {"cg/mem/a/memory.limit_in_bytes": "900", "cg/mem/a/b/memory.limit_in_bytes": NO_LIMIT,
          "sys/fs/cgroup/memory/memory.limit_in_bytes": "1"}, 900),
        # A container whose mount begins at its own group; it still sees the host's path.
        ("4:memory:/docker/id\n", V1.format(root="/docker/id", point="/sys/fs/cgroup/memory"),
         {"sys/fs/cgroup/memory/memory.limit_in_bytes": "700"}, 700),
        # A child group inside such a container.
        ("4:memory:/docker/id/job\n", V1.format(root="/docker/id", point="/sys/fs/cgroup/memory"),
         {"sys/fs/cgroup/memory/memory.limit_in_bytes": "700",
          "sys/fs/cgroup/memory/job/memory.limit_in_bytes": "300"}, 300),
        # A group whose name only begins like the mount's is not below it.
        ("4:memory:/docker/id2\n", V1.format(root="/docker/id", point="/sys/fs/cgroup/memory"),
         {"sys/fs/cgroup/memory/memory.limit_in_bytes": "700",
          "sys/fs/cgroup/memory/2/memory.limit_in_bytes": "1"}, 700),
        # Version 1 tells an ancestor's limit even where the ancestor is not mounted.
        ("4:memory:/pod/id\n", V1.format(root="/pod/id", point="/sys/fs/cgroup/memory"),
         {"sys/fs/cgroup/memory/memory.limit_in_bytes": NO_LIMIT,
          "sys/fs/cgroup/memory/memory.stat": "cache 1\nhierarchical_memory_limit 640\n"}, 640),
        # Version 2 in a namespace: the group is "/", its file lies at the mount point.
        ("0::/\n", V2.format(root="/", point="/sys/fs/cgroup"),
         {"sys/fs/cgroup/memory.max": "500\n"}, 500),
        # Version 2 seen from outside its namespace.
        ("0::/../other\n", V2.format(root="/", point="/sys/fs/cgroup"),
         {"sys/fs/cgroup/memory.max": "450\n", "sys/fs/other/memory.max": "1"}, 450),
        ("0::/x/y\n", V2.format(root="/", point="/sys/fs/cgroup"),
         {"sys/fs/cgroup/x/memory.max": "400\n", "sys/fs/cgroup/x/y/memory.max": "max\n"}, 400),
        ("0::/x\n", V2.format(root="/", point="/sys/fs/cgroup"),
         {"sys/fs/cgroup/x/memory.max": "max\n"}, None),
        # Spaces are written in octal.
        ("0::/x\n", V2.format(root="/", point="/my\\040groups"),
         {"my groups/x/memory.max": "350"}, 350),
        # Two mounts of one tree: that which holds the group counts.
        ("0::/x\n", V2.format(root="/else", point="/a") + V2.format(root="/", point="/b"),
         {"a/memory.max": "1", "b/x/memory.max": "250"}, 250),
        # Both versions at once.
        ("4:memory:/\n0::/u\n",
         V1.format(root="/", point="/sys/fs/cgroup/memory")
         + V2.format(root="/", point="/sys/fs/cgroup/unified"),
         {"sys/fs/cgroup/memory/memory.limit_in_bytes": "800",
          "sys/fs/cgroup/unified/u/memory.max": "600"}, 600),
        ("3:cpu:/a\n", "", {"sys/fs/cgroup/memory/memory.limit_in_bytes": "5"}, None),
    ],
)  # fmt: skip
def test_limits_are_found_by_mountinfo(
    cgroup: str, mountinfo: str, files: dict[str, str], limit: int | None, tree: Tree
) -> None:
    assert probe.cgroup_limit_bytes(tree(cgroup, mountinfo, files)) == limit


def test_page_cache_is_not_use(tree: Tree) -> None:
    stat = "anon 300\nfile 650\nshmem 50\ninactive_anon 10\ninactive_file 400\nactive_file 200\n"
    files = {
        "sys/fs/cgroup/x/memory.max": "1000",
        "sys/fs/cgroup/x/memory.current": "990",
        "sys/fs/cgroup/x/memory.stat": stat,
    }
    root = tree("0::/x\n", V2.format(root="/", point="/sys/fs/cgroup"), files)
    assert probe.cgroup_used_bytes(root) == 390
    assert probe.cgroup_free_bytes(root) == 610


def test_version_one_counts_the_groups_below_too(tree: Tree) -> None:
    stat = "inactive_file 1\nactive_file 1\ntotal_inactive_file 300\ntotal_active_file 200\n"
    files = {
        "sys/fs/cgroup/memory/memory.limit_in_bytes": "1000",
        "sys/fs/cgroup/memory/memory.usage_in_bytes": "950",
        "sys/fs/cgroup/memory/memory.stat": stat,
    }
    root = tree("4:memory:/\n", V1.format(root="/", point="/sys/fs/cgroup/memory"), files)
    assert probe.cgroup_free_bytes(root) == 550


def test_what_siblings_use_of_a_parents_limit_is_not_free(tree: Tree) -> None:
    files = {
        "sys/fs/cgroup/pod/memory.max": "1000",
        "sys/fs/cgroup/pod/memory.current": "800",
        "sys/fs/cgroup/pod/own/memory.max": "900",
        "sys/fs/cgroup/pod/own/memory.current": "100",
    }
    root = tree("0::/pod/own\n", V2.format(root="/", point="/sys/fs/cgroup"), files)
    assert probe.cgroup_limit_bytes(root) == 900
    assert probe.cgroup_used_bytes(root) == 100
    assert probe.cgroup_free_bytes(root) == 200


def test_a_group_over_its_limit_has_nothing_free(tree: Tree) -> None:
    files = {"sys/fs/cgroup/memory.max": "100", "sys/fs/cgroup/memory.current": "120"}
    root = tree("0::/\n", V2.format(root="/", point="/sys/fs/cgroup"), files)
    assert probe.cgroup_free_bytes(root) == 0


def test_without_cgroups_there_is_no_limit(tmp_path: Path) -> None:
    assert probe.cgroup_limit_bytes(tmp_path) is None
    assert probe.cgroup_used_bytes(tmp_path) is None
    assert probe.cgroup_free_bytes(tmp_path) is None


@pytest.fixture
def unlimited(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    monkeypatch.delenv("STREAMFEAT_MEMORY", raising=False)
    for name in ("cgroup_limit_bytes", "cgroup_free_bytes", "rlimit_bytes"):
        monkeypatch.setattr(probe, name, lambda: None)
    return monkeypatch


def test_the_default_is_a_share_of_what_the_tighter_of_both_leaves(
    unlimited: pytest.MonkeyPatch,
) -> None:
    unlimited.setattr(probe, "process_bytes", lambda: 10**8)
    unlimited.setattr(probe, "cgroup_free_bytes", lambda: 4 * 10**8)
    assert probe.available_bytes() == 5 * 10**8
    assert probe.discover_budget() == probe.Budget(3 * 10**8, "60% of what is free")
    unlimited.setattr(probe, "cgroup_free_bytes", lambda: 10**18)
    assert probe.available_bytes() < 10**17


@pytest.mark.parametrize(
    ("container", "process", "budget", "origin"),
    [
        (None, None, 4 * 10**9, "as given"),
        (4 * 10**9, 4 * 10**9, 4 * 10**9, "as given"),
        (10**9, None, 10**9, "the container's limit; 4.0 GB asked"),
        (None, 2 * 10**9, 2 * 10**9, "the process's limit; 4.0 GB asked"),
        (3 * 10**9, 2 * 10**9, 2 * 10**9, "the process's limit; 4.0 GB asked"),
        (10**9, 2 * 10**9, 10**9, "the container's limit; 4.0 GB asked"),
    ],
)
def test_the_lower_limit_wins_and_says_what_was_asked(
    container: int | None, process: int | None, budget: int, origin: str,
    unlimited: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    unlimited.setattr(probe, "cgroup_limit_bytes", lambda: container)
    unlimited.setattr(probe, "rlimit_bytes", lambda: process)
    assert probe.discover_budget("4GB") == probe.Budget(budget, origin)


@pytest.mark.skipif(sys.platform != "linux", reason="limits of processes differ elsewhere")
def test_the_limits_of_a_process_are_read() -> None:
    code = (
        "import resource as r; r.setrlimit(r.RLIMIT_DATA, (3_000_000_000, r.RLIM_INFINITY)); "
        "r.setrlimit(r.RLIMIT_AS, (5_000_000_000, r.RLIM_INFINITY)); "
        "from streamfeat.memory import rlimit_bytes; print(rlimit_bytes())"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "3000000000"


FORK = """
import os, threading
from streamfeat.memory import probe
held = bytearray(b"x" * 200_000_000)
parent = probe.process_bytes()
probe._STATM._lock.acquire()  # as another thread would hold it
pid = os.fork()
if pid == 0:
    del held
    own = int(open("/proc/self/statm").read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    near = abs(probe.process_bytes() - own) < 20_000_000
    os._exit(0 if near and probe.process_bytes() < parent - 100_000_000 else 1)
raise SystemExit(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no forks here")
def test_a_fork_measures_itself_though_the_lock_was_held() -> None:
    subprocess.run([sys.executable, "-c", FORK], check=True, timeout=60)


CLOSED = """
import os
from streamfeat.memory import probe
probe.process_bytes()
os.closerange(3, 256)
null = os.open("/dev/null", os.O_RDONLY)
assert probe.process_bytes() > 1_000_000
os.close(null)
assert probe.process_bytes() > 1_000_000
"""


@pytest.mark.skipif(not hasattr(os, "closerange"), reason="no such handles here")
def test_a_closed_handle_is_opened_again() -> None:
    subprocess.run([sys.executable, "-c", CLOSED], check=True, timeout=60)


def test_elsewhere_psutil_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    expected = probe.process_bytes()
    monkeypatch.setattr(probe, "_HAS_PROC", False)
    assert abs(probe.process_bytes() - expected) < 20_000_000
    assert probe.peak_bytes() > 0


def test_threads_share_one_handle() -> None:
    statm = probe._Statm()
    start, handles = threading.Barrier(8), set()

    def read() -> None:
        start.wait()
        assert statm.resident_bytes() > 0
        handles.add(statm._opened[1])

    threads = [threading.Thread(target=read) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    os.close(handles.pop())
    assert not handles


RETURNED = """
from streamfeat.memory import limit_malloc_arenas, process_bytes, release_free_heap
limit_malloc_arenas(2)
import numpy as np
many = [np.ones(2_000) for _ in range(8_000)]
many = many[::200]
before = process_bytes()
given = release_free_heap()
assert given > 50_000_000, given
assert abs(before - process_bytes() - given) < 5_000_000
"""


@pytest.mark.skipif(sys.platform != "linux", reason="only glibc keeps it")
def test_free_heap_is_given_back() -> None:
    gc.collect()
    subprocess.run([sys.executable, "-c", RETURNED], check=True, timeout=60)


def test_arrow_gives_back_only_if_it_is_loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []
    pool = SimpleNamespace(release_unused=lambda: asked.append("arrow"))
    monkeypatch.setitem(
        sys.modules,
        "pyarrow",
        SimpleNamespace(default_memory_pool=lambda: pool),  # type: ignore[arg-type]
    )
    probe.release_free_heap()
    assert asked == ["arrow"]
    monkeypatch.delitem(sys.modules, "pyarrow")
    probe.release_free_heap()
    assert asked == ["arrow"] and "pyarrow" not in sys.modules


def test_without_glibc_nothing_is_trimmed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "elsewhere")
    assert probe._libc_function("malloc_trim") is None
    probe.limit_malloc_arenas()
    assert probe.release_free_heap() >= 0
