"""Available memory: the least of what the kernel and the control groups leave."""

import os
import subprocess
import sys

from inflight._native import available_cpus

from inflight.engine.machine import available_memory, total_memory

MEMINFO = "MemTotal: 8000 kB\nMemFree: 1 kB\nMemAvailable: 4000 kB\n"


def write(root, **files):
    for path, text in files.items():
        target = root / path.replace("__", "/")
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text)
    return root


def test_without_control_groups(tmp_path):
    assert available_memory(write(tmp_path, proc__meminfo=MEMINFO)) == 4000 * 1024


def test_version_2_counts_page_cache_as_free_and_looks_at_every_level(tmp_path):
    write(tmp_path, proc__meminfo=MEMINFO, **{"proc__self__cgroup": "0::/a/b\n"})
    group = "sys__fs__cgroup__a"
    write(tmp_path, **{f"{group}__memory.max": "3000000", f"{group}__memory.current": "2000000"})
    write(tmp_path, **{f"{group}__memory.stat": "anon 1\ninactive_file 500000\n"})
    write(
        tmp_path,
        **{f"{group}__b__memory.max": "max", f"{group}__b__memory.current": "1", f"{group}__b__memory.stat": ""},
    )
    assert available_memory(tmp_path) == 1500000


def test_version_1(tmp_path):
    write(tmp_path, proc__meminfo=MEMINFO, **{"proc__self__cgroup": "5:cpu:/x\n4:memory:/docker/abc\n"})
    group = "sys__fs__cgroup__memory"  # a container sees its own group as the root
    write(tmp_path, **{f"{group}__memory.limit_in_bytes": "1000000", f"{group}__memory.usage_in_bytes": "700000"})
    write(tmp_path, **{f"{group}__memory.stat": "total_inactive_file 100000\n"})
    assert available_memory(tmp_path) == 400000


def test_what_there_is_in_all_does_not_depend_on_what_is_used(tmp_path):
    write(tmp_path, proc__meminfo=MEMINFO, **{"proc__self__cgroup": "0::/a/b\n"})
    assert total_memory(tmp_path) == os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    write(tmp_path, **{"sys__fs__cgroup__a__memory.max": "3000000", "sys__fs__cgroup__a__b__memory.max": "max"})
    assert total_memory(tmp_path) == 3000000


def test_this_machine():
    assert available_memory() <= total_memory()
    assert available_memory() > 1 << 20


def test_an_engine_is_planned_for_as_many_threads_as_it_will_start():
    program = "import os; os.sched_setaffinity(0, [min(os.sched_getaffinity(0))]); "
    program += "from inflight._native import available_cpus; print(available_cpus())"
    assert subprocess.run([sys.executable, "-c", program], capture_output=True, text=True).stdout == "1\n"
    assert 1 <= available_cpus() <= len(os.sched_getaffinity(0))
