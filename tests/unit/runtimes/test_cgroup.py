"""How many cores a process may use, for both versions of control groups."""

from pathlib import Path

from runtimes.cgroup import available_cores, available_memory, cores, groups, read_quotas, v1_quota, v2_quota


def test_a_quota_cuts_the_affinity_down_and_is_rounded_down() -> None:
    assert cores(64, [2.5, 4.0]) == 2
    assert cores(4, [16.0]) == 4
    assert cores(4, []) == 4


def test_half_a_core_is_still_one() -> None:
    assert cores(8, [0.5]) == 1


def test_version_two_reads_quota_and_period() -> None:
    assert v2_quota("150000 100000\n") == 1.5
    assert v2_quota("max 100000\n") is None
    for odd in ("", "1", "a b", "0 100000", "100000 0"):
        assert v2_quota(odd) is None


def test_version_one_has_minus_one_for_no_limit() -> None:
    assert v1_quota("200000\n", "100000\n") == 2.0
    assert v1_quota("-1\n", "100000\n") is None


def test_only_the_groups_that_govern_the_cpu_are_named() -> None:
    text = "12:cpuset:/a\n4:cpu,cpuacct:/docker/abc\n0::/system.slice/x:y\nnonsense\n"
    assert list(groups(text)) == [(1, "/docker/abc"), (2, "/system.slice/x:y")]


def test_quotas_of_all_groups_above_count(tmp_path: Path) -> None:
    proc = tmp_path / "cgroup"
    proc.write_text("0::/above/here\n3:cpu:/../old\n")
    mount = tmp_path / "mount"
    for folder, text in {"above/here": "max 100000", "above": "300000 100000", ".": "800000 100000"}.items():
        (mount / folder).mkdir(parents=True, exist_ok=True)
        (mount / folder / "cpu.max").write_text(text)
    (mount / "cpu").mkdir()
    (mount / "cpu" / "cpu.cfs_quota_us").write_text("50000")
    (mount / "cpu" / "cpu.cfs_period_us").write_text("25000")
    assert list(read_quotas(proc, mount)) == [3.0, 8.0, 2.0]


def test_without_control_groups_the_affinity_is_all_there_is(tmp_path: Path) -> None:
    assert list(read_quotas(tmp_path / "none", tmp_path)) == []
    assert available_cores() >= 1


def test_memory_is_what_the_machine_has_left_or_less_where_a_group_says_so(tmp_path: Path) -> None:
    meminfo, proc = tmp_path / "meminfo", tmp_path / "cgroup"
    meminfo.write_text("MemTotal: 9000 kB\nMemAvailable: 4000 kB\n")
    proc.write_text("0::/pod/main\n3:memory:/old\n")

    def found() -> int:
        return available_memory(meminfo, proc, tmp_path / "fs")

    assert found() == 4000 * 1024
    group = tmp_path / "fs" / "pod"
    group.mkdir(parents=True)
    (group / "memory.max").write_text("max\n")
    (group / "memory.current").write_text("1000\n")
    assert found() == 4000 * 1024
    (group / "memory.max").write_text("5000\n")
    assert found() == 4000
    old = tmp_path / "fs" / "memory" / "old"
    old.mkdir(parents=True)
    (old / "memory.limit_in_bytes").write_text("1500")
    (old / "memory.usage_in_bytes").write_text("2000")
    assert found() == 0
    meminfo.unlink()
    proc.unlink()
    assert found() == 0
