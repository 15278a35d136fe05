"""Machines on this one, for tests of clusters: namespaces joined by a bridge, which share no folder but the program.

Each has its own processes, network, name, home, temporary folder and shared memory, and is reached over ssh from the
hub, where a user would sit. SIGKILL of its first process is its power loss. All of them end with the hub, and the hub
with the process that made it. The system's folders, Python, the virtual environment and the package are read-only.
"""

import os
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
from itertools import count
from pathlib import Path

ROOT = Path(__file__).parent.parent
PACKAGE = "/opt/idat-tune"  # where machines have the code under test
USER = "root"
NET = "10.77.0."
HUB = NET + "1"
SHARED_MEMORY = "2g"
PATIENCE = 300.0  # seconds for anything that is waited for; the machine may be busy
NEEDED = {  # Debian's package by what it brings
    "ip": "iproute2",
    "sshd": "openssh-server",
    "ssh": "openssh-client",
    "rsync": "rsync",
    "unshare": "util-linux",
}
NAMESPACES = ("--net", "--pid", "--mount", "--uts", "--ipc")
TOOLS = f"{Path(sys.prefix) / 'bin'}:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
ENVIRONMENT = {
    "PATH": TOOLS,
    "PYTHONPATH": PACKAGE,
    "LANG": "C.UTF-8",
    "OMP_NUM_THREADS": "1",
    "CUDA_VISIBLE_DEVICES": "",
}
# What a machine does from its first process on. Its root is made of the system's folders and of its own ones, so that
# nothing else of this machine can be seen from it.
BOOT = """
set -e
mount -t tmpfs root "$ROOM"
cd "$ROOM"
for top in /*; do
    case $top in
        /bin|/etc|/lib*|/sbin|/usr) ;;
        *) continue ;;
    esac
    if [ -L $top ]; then cp -P $top .; else mkdir .$top; mount -o bind,ro $top .$top; fi
done
mkdir -p dev proc sys run root tmp var/tmp opt old
mount --rbind /dev dev
mount -t tmpfs -o mode=1777,size=$MEMORY shm dev/shm
mount -t proc proc proc
mount --rbind -o ro /sys sys
mount -t tmpfs run run
mount --bind "$DISK/root" root
mount --bind "$DISK/tmp" tmp
mkdir -p run/sshd
while IFS='|' read -r from to; do
    mkdir -p ".$to"
    mount -o bind,ro "$from" ".$to"
done <<< "$FOLDERS"
mount --bind "$DISK/hosts" etc/hosts
hostname "$NAME"
pivot_root . old
cd /
umount -l /old
rmdir /old
hash -r
ip link set lo up
"""
HUB_BOOT = """
ip link add br0 type bridge
ip addr add $ADDRESS/24 dev br0
ip link set br0 up
echo up
cat > /dev/null
"""
MACHINE_BOOT = """
until ip link show eth0 > /dev/null 2>&1; do sleep 0.02; done
ip addr add $ADDRESS/24 dev eth0
ip link set eth0 up
ip route add default via $GATEWAY
/usr/sbin/sshd -D -e -f /dev/null -h "$HOME/.ssh/host_key" -o UsePAM=no -o StrictModes=no \
    -o PermitRootLogin=yes -o "SetEnv=$ENVIRONMENT" -o Subsystem="sftp internal-sftp" 2> "$HOME/sshd.log" &
wait
"""


def lacking() -> str | None:
    """Why there can be no such machines here, in words for a test that is skipped; None if there can."""
    if os.name != "posix" or not sys.platform.startswith("linux"):
        return "machines are made of Linux namespaces"
    if os.geteuid() != 0:
        return "machines need root"
    missing = [f"{tool} (Debian: {package})" for tool, package in NEEDED.items() if not _tool(tool)]
    if missing:
        return f"machines need {', '.join(missing)}"
    tried = subprocess.run(["unshare", *NAMESPACES, "--fork", "mount", "-t", "tmpfs", "t", "/mnt"], capture_output=True)
    return f"machines need namespaces: {tried.stderr.decode().strip()}" if tried.returncode else None


def _tool(name: str) -> str | None:
    return shutil.which(name, path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin")


class Machines:
    """A hub and machines 1 to n; see the module."""

    def __init__(self, n: int):
        """How many are started with it; `start` takes others, too."""
        self.n = n
        self.namespaces: set[str] = set()  # of processes of the hub and of each machine that runs
        self._first: dict[int, int] = {}  # first process of each that runs; the hub is 0
        self._link: dict[int, str] = {}  # the hub's end of the cable of each
        self._links = count()

    def __enter__(self) -> "Machines":
        """The hub, and machines that answer."""
        self.folder = Path(tempfile.mkdtemp(prefix="machines-"))
        try:
            self._make_disk(0)
            self._hub = self._boot(0, HUB, HUB_BOOT, ["unshare"], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
            if not self._hub.stdout.readline():
                raise RuntimeError(f"the hub did not start:\n{self.log(0)}")
            self._know(0, _child(self._hub.pid))
            self.hub("ssh-keygen -q -t ed25519 -N '' -f ~/.ssh/id_ed25519")
            for i in range(1, self.n + 1):
                self.start(i)
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        """End all of them, at once."""
        if 0 in self._first:
            self._hub.stdin.close()  # which ends its first process
            self._hub.wait(PATIENCE)
        until(lambda: not self.left(), "its processes end")
        shutil.rmtree(self.folder)

    def address(self, i: int) -> str:
        """The IP of a machine."""
        return f"{NET}{10 + i}" if i else HUB

    def start(self, i: int) -> None:
        """Switch a machine on, and wait until it answers; one that was there before has its disk still."""
        if not (self.folder / str(i)).exists():
            self._make_disk(i)
            ssh = self.folder / str(i) / "root" / ".ssh"
            keys = self.folder / "0" / "root" / ".ssh"
            shutil.copy(keys / "id_ed25519", ssh / "host_key")
            shutil.copy(keys / "id_ed25519.pub", ssh / "authorized_keys")
        into = ["nsenter", f"--pid=/proc/{self._first[0]}/ns/pid", "unshare"]
        process = self._boot(i, self.address(i), MACHINE_BOOT, into)
        first = _child(_child(process.pid))
        self._know(i, first)
        link = self._link[i] = f"v{next(self._links)}"
        self._ip(f"link add {link} type veth peer name eth0 netns {first}")
        self._ip(f"link set {link} master br0 up")
        until(lambda: self.ssh(i, "true", check=False).returncode == 0, f"machine {i} answers", lambda: self.log(i))

    def kill(self, i: int) -> None:
        """Take the power from a machine: nobody hears of it any more, and its processes end."""
        self._ip(f"link set {self._link.pop(i)} down")
        gone = _namespace(self._first[i])
        os.kill(self._first.pop(i), 9)
        until(lambda: gone not in map(_namespace, _pids()), f"machine {i} is off")
        self.namespaces.discard(gone or "")  # the kernel may give another its number

    def hub(self, command: str, check: bool = True, timeout: float = 600) -> subprocess.CompletedProcess[str]:
        """Run a shell command where the user sits."""
        words = self._on_hub(command)
        return _ran(words, check, timeout)

    def ssh(self, i: int, command: str, check: bool = True, timeout: float = 600) -> subprocess.CompletedProcess[str]:
        """Run a shell command on a machine, over ssh."""
        return _ran(self._over_ssh(i, command), check, timeout)

    def begin(self, i: int, command: str, terminal: bool = False) -> "subprocess.Popen[str]":
        """Likewise, without waiting for it; in a terminal there, if it is to hear when its line is cut."""
        return subprocess.Popen(
            self._over_ssh(i, command, "-tt" if terminal else "-T"),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    def cut(self, process: "subprocess.Popen[str]") -> None:
        """Cut the ssh connection of a command that was begun."""
        os.kill(_child(process.pid), 9)
        process.communicate(timeout=PATIENCE)

    def running(self, i: int) -> list[str]:
        """The command lines of a machine's processes, as the machine that all of this is on sees them."""
        mine = _namespace(self._first[i])
        return [line for pid in _pids() if _namespace(pid) == mine and (line := _command_line(pid))]

    def left(self) -> list[str]:
        """The command lines of all processes of the hub and of machines."""
        return [_command_line(pid) or "?" for pid in _pids() if _namespace(pid) in self.namespaces]

    def disk(self, i: int) -> Path:
        """The home of a machine, as the test may look at it."""
        return self.folder / str(i) / "root"

    def log(self, i: int) -> str:
        """What its start, and ssh there, had to say."""
        files = (self.folder / f"{i}.log", self.disk(i) / "sshd.log")
        return "".join(path.read_text() for path in files if path.exists())

    def _make_disk(self, i: int) -> None:
        disk = self.folder / str(i)
        (disk / "root" / ".ssh").mkdir(parents=True, mode=0o700)
        (disk / "tmp").mkdir()
        (disk / "tmp").chmod(0o1777)
        (disk / "room").mkdir()
        (disk / "hosts").write_text(f"127.0.0.1 localhost\n{self.address(i)} {_name(i)}\n")

    def _boot(self, i: int, address: str, then: str, into: list[str], **pipes: int) -> "subprocess.Popen[str]":
        disk = self.folder / str(i)
        python, here = Path(sys.base_prefix), Path(sys.prefix)
        folders = {python: python, here: here, ROOT / "idat_tune": f"{PACKAGE}/idat_tune"}
        folders[ROOT / "search_spaces"] = f"{PACKAGE}/search_spaces"
        settings = {
            "ROOM": str(disk / "room"),
            "DISK": str(disk),
            "MEMORY": SHARED_MEMORY,
            "FOLDERS": "\n".join(f"{a}|{b}" for a, b in folders.items() if not str(a).startswith("/usr/")),
            "NAME": _name(i),
            "ADDRESS": address,
            "GATEWAY": HUB,
            "ENVIRONMENT": " ".join(f"{name}={value}" for name, value in ENVIRONMENT.items()),
        }
        script = self.folder / f"{i}.boot"
        script.write_text(BOOT + then)
        with (self.folder / f"{i}.log").open("a") as log:
            return subprocess.Popen(
                [*into, *NAMESPACES, "--fork", "--kill-child", "bash", str(script)],
                env={"HOME": "/root", "PATH": TOOLS, **settings},
                start_new_session=True,  # so that a signal to a group stays among those that it is for
                text=True,
                stderr=log,
                **{"stdin": subprocess.DEVNULL, "stdout": subprocess.DEVNULL, **pipes},
            )

    def _know(self, i: int, first: int) -> None:
        self._first[i] = first
        self.namespaces.add(_namespace(first) or "")

    def _on_hub(self, command: str) -> list[str]:
        environment = [f"{name}={value}" for name, value in {**ENVIRONMENT, "HOME": "/root"}.items()]
        into = ["nsenter", f"--target={self._first[0]}", *NAMESPACES]
        return [*into, "env", "-i", *environment, "bash", "-c", f"cd; {command}"]

    def _over_ssh(self, i: int, command: str, kind: str = "-T") -> list[str]:
        options = (
            f"{kind} -o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null -o LogLevel=ERROR -o ConnectTimeout=5"
        )
        return self._on_hub(f"exec ssh {options} {USER}@{self.address(i)} {shlex.quote(command)}")

    def _ip(self, words: str) -> None:
        net = f"--net=/proc/{self._first[0]}/ns/net"
        _ran(["nsenter", net, *shlex.split(f"ip {words}")], check=True, timeout=PATIENCE)


def until(true, what, otherwise=lambda: "", patience=PATIENCE, every=0.1):
    """Wait until something is so; what it says then."""
    deadline = time.monotonic() + patience
    while not (found := true()):
        if time.monotonic() > deadline:
            raise TimeoutError(f"waited {patience:g} s until {what}\n{otherwise()}")
        time.sleep(every)
    return found


def _ran(words: list[str], check: bool, timeout: float) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        words, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=timeout, start_new_session=True
    )
    if check and done.returncode:
        raise RuntimeError(f"{words[-1]} ended with {done.returncode}:\n{done.stdout[-3000:]}{done.stderr[-3000:]}")
    return done


def _name(i: int) -> str:
    return f"machine-{i}" if i else "hub"


def _child(pid: int) -> int:
    """The child of a process that has one, soon."""
    children = Path(f"/proc/{pid}/task/{pid}/children")
    return int(until(lambda: _read(children), "a process has a child", every=0.01).split()[0])


def _read(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:  # it has ended
        return ""


def _pids() -> list[int]:
    return [int(path.name) for path in Path("/proc").iterdir() if path.name.isdigit()]


def _namespace(pid: int) -> str | None:
    try:
        return str(Path(f"/proc/{pid}/ns/pid").readlink())
    except OSError:  # it has ended
        return None


def _command_line(pid: int) -> str:
    return _read(Path(f"/proc/{pid}/cmdline")).replace("\0", " ").strip()
