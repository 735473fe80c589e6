"""Several hosts on one machine: network namespaces that reach each other through a relay, and MPI ranks on them."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

from mocosfl_mpi.launch import environment, find_mpiexec
from tests.cluster.slurm import ROOT
from tests.mpi.command import clean_environment

HERE = Path(__file__).parent
REMOTE_SHELL = HERE / "remote_shell"
NETWORK = "10.77.0"


def why_not() -> str:
    """The reason why there can be no such hosts here, or nothing."""
    if os.geteuid() != 0:
        return "network namespaces need root"
    if shutil.which("ip") is None:
        return "not installed: ip (Debian's iproute2; `make cluster-packages`)"
    probe = f"mocosfl{os.getpid()}probe"
    made = subprocess.run(["ip", "netns", "add", probe], capture_output=True, text=True, check=False)
    if made.returncode:
        return f"network namespaces are not permitted here: {made.stderr.strip()}"
    subprocess.run(["ip", "netns", "del", probe], check=True)
    return ""


class Hosts:
    """``count`` hosts from ``__enter__`` to ``__exit__``; the network has ``delay``, ``jitter`` (ms) and ``loss``."""

    def __init__(self, count: int, *, delay: float = 0.0, jitter: float = 0.0, loss: float = 0.0) -> None:
        self.count = count
        self.prefix = f"mocosfl{os.getpid()}h"
        self.hub = f"mocosfl{os.getpid()}hub"
        self.names = [f"{self.prefix}{number}" for number in range(1, count + 1)]
        self.addresses = [f"{NETWORK}.{number}" for number in range(1, count + 1)]
        self._network = [f"--delay={delay}", f"--jitter={jitter}", f"--loss={loss}"]
        self._relay: subprocess.Popen[str] | None = None

    def __enter__(self) -> Hosts:
        try:
            self._build()
        except BaseException:
            self.__exit__()
            raise
        return self

    def _build(self) -> None:
        ip("netns", "add", self.hub)
        ports = [f"port{number}" for number in range(1, self.count + 1)]
        for name, address, port in zip(self.names, self.addresses, ports, strict=True):
            ip("netns", "add", name)
            ip("-n", self.hub, "link", "add", port, "type", "veth", "peer", "name", "eth0", "netns", name)
            ip("-n", self.hub, "link", "set", port, "mtu", "9000", "up")
            ip("-n", name, "address", "add", f"{address}/24", "dev", "eth0")
            ip("-n", name, "link", "set", "eth0", "mtu", "9000", "up")
            ip("-n", name, "link", "set", "lo", "up")
            for place, device in ((self.hub, port), (name, "eth0")):  # the relay wants frames as the wire has them
                off = [word for feature in ("tso", "gso", "gro", "tx", "rx") for word in (feature, "off")]
                ip("netns", "exec", place, "ethtool", "-K", device, *off)
        self._relay = subprocess.Popen(
            ["ip", "netns", "exec", self.hub, sys.executable, HERE / "relay.py", *ports, *self._network],
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self._relay.stdout is not None
        assert self._relay.stdout.readline() == "ready\n"
        self._wait_for_carriers()

    def _wait_for_carriers(self) -> None:
        """The kernel may tell of a link a moment after it is up; UCX, asked before, finds no way to the others."""
        deadline = time.monotonic() + 10
        while not all(" UP " in ip("-n", name, "-br", "link", "show", "eth0") for name in self.names):
            assert time.monotonic() < deadline, "a network interface does not come up"
            time.sleep(0.05)

    def __exit__(self, *_: object) -> None:
        if self._relay is not None:
            self._relay.terminate()
            self._relay.communicate(timeout=10)
        for name in (*self.names, self.hub):
            for pid in ip("netns", "pids", name, check=False).split():
                os.kill(int(pid), signal.SIGKILL)
            ip("netns", "del", name, check=False)

    def toggle_partition(self) -> None:
        """Cut the last host off, or join it again."""
        assert self._relay is not None
        self._relay.send_signal(signal.SIGUSR1)

    def received(self, host: int) -> int:
        """Bytes that have reached host ``host`` (from 1) over the network."""
        text = ip("netns", "exec", self.names[host - 1], "cat", "/sys/class/net/eth0/statistics/rx_bytes")
        return int(text)

    def pids(self, name: str | None = None) -> list[int]:
        """Every process on the host called ``name``, or on all hosts."""
        return [int(pid) for each in ([name] if name else self.names) for pid in ip("netns", "pids", each).split()]

    def ranks(self, host: int | None = None) -> list[int]:
        """Processes of this Python on host ``host`` (from 1), or on all hosts."""
        names = self.names if host is None else [self.names[host - 1]]
        return [pid for name in names for pid in self.pids(name) if _is_python(pid)]

    def start(self, *arguments: str | Path, **extra: str) -> subprocess.Popen[str]:
        """``mocosfl arguments`` with one rank per host, started from the first."""
        path, kind = find_mpiexec()
        environ = environment(kind, clean_environment(), ranks=self.count)
        environ |= {"MOCOSFL_TEST_HOSTS": self.prefix, "PYTHONPATH": str(ROOT)} | extra
        if kind == "openmpi":
            environ |= {"OMPI_MCA_btl": "self,tcp", "OMPI_MCA_pml": "ob1"}
            hosts = ",".join(f"{address}:1" for address in self.addresses)
            launcher = ["--prtemca", "plm_ssh_agent", str(REMOTE_SHELL), "--host", hosts, "--map-by", "node"]
        else:
            environ |= {"UCX_TLS": "tcp,self"}  # it would find the neighbour's shared memory, past the network
            hosts = ",".join(f"{address}:1" for address in self.addresses)
            launcher = ["-launcher", "ssh", "-launcher-exec", str(REMOTE_SHELL), "-hosts", hosts]
        words = [path, *launcher, "-n", str(self.count), sys.executable, "-m", "mocosfl_mpi", *map(str, arguments)]
        code = f'hostname {self.names[0]}; exec "$@"'
        return subprocess.Popen(
            ["ip", "netns", "exec", self.names[0], "unshare", "--uts", "bash", "-c", code, "bash", *words],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=environ,
        )


def ip(*words: str, check: bool = True) -> str:
    done = subprocess.run(["ip", *words], capture_output=True, text=True, check=False, timeout=30)
    if check and done.returncode:
        raise RuntimeError(f"ip {' '.join(words)}: {done.stderr.strip()}")
    return done.stdout


def _is_python(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().startswith(sys.executable.encode())
    except OSError:  # it has ended meanwhile
        return False
