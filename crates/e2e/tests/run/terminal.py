"""Types into an interactive shell on a pty and checks what comes back: Ctrl-C, Ctrl-Z, fg, an inner shell."""
import os, pty, re, select, subprocess, sys, time

weir, manifests = sys.argv[1:]
RUN = f"{weir} run --manifests {manifests} --"
said = ""
last = time.monotonic() + 120


def read(seconds):
    """Reads what comes within the time; ends all after two minutes."""
    global said
    if time.monotonic() > last:
        sys.exit(f"it takes too long; there was {said!r}")
    if select.select([shell], [], [], seconds)[0]:
        said += os.read(shell, 65536).decode(errors="replace")


def wait_for(pattern):
    """Reads until the pattern is there; gives up after 30 s. What was read up to it is forgotten."""
    global said
    end = time.monotonic() + 30
    while True:
        found = re.search(pattern, said)
        if found:
            said = said[found.end():]
            return found
        if time.monotonic() > end:
            sys.exit(f"waited in vain for {pattern!r}; there was {said!r}")
        read(0.1)


def wait_for_foreground(command):
    """Waits until the terminal is this command's: a key that comes sooner is the shell's, and what was typed before
    a key that stops is thrown away with it."""
    terminal = os.readlink(f"/proc/{child}/fd/0").removeprefix("/dev/")
    while True:
        listed = subprocess.run(["ps", "-t", terminal, "-o", "stat=,args="], capture_output=True, text=True).stdout
        states = [words[0] for words in map(str.split, listed.splitlines()) if words[1:] == command.split()]
        if any("+" in state for state in states):
            return
        read(0.1)


def line(text):
    os.write(shell, text.encode() + b"\n")


child, shell = pty.fork()
if child == 0:
    os.environ.update(PS1="$ ", HISTFILE="/dev/null", TERM="dumb")
    os.execvp("bash", ["bash", "--norc", "--noprofile", "-i"])

# `''` keeps the echo of what is typed from being taken for its output.
line(f"{RUN} sh -c 'echo rea''dy; exec sleep 1000'")
wait_for("ready")
os.write(shell, b"\x1a")
wait_for(r"Stopped.*weir run")
line("echo sta''te $(ps -o stat= --ppid $(jobs -p) | tr '\\n' ' ')")
wait_for(r"state T")
line("fg")
wait_for(r"sleep 1000")
wait_for_foreground("sleep 1000")
os.write(shell, b"\x03")
line("echo co''de $?")
wait_for(r"code 130")

line(f"{RUN} sh -c 'trap \"echo cau''ght; exit 5\" INT; echo rea''dy; while :; do sleep 0.05; done'")
wait_for("ready")
os.write(shell, b"\x03")
wait_for("caught")
line("echo co''de $?")
wait_for(r"code 5")

# An inner shell takes the terminal, stops and continues jobs of its own, and gives it back.
line(f"{RUN} bash --norc --noprofile -i")
line("echo in''ner $((6 * 7)) $(tty)")
wait_for(r"inner 42 /dev/pts")
line("sleep 1000")
wait_for_foreground("sleep 1000")
os.write(shell, b"\x1a")
wait_for(r"Stopped.*sleep 1000")
line("kill -KILL %1")
# It tells of jobs before a prompt, and learns of them at the latest when it waits for another one.
while "Killed" not in said:
    line("/bin/true")
    read(0.2)
line("exit 9")
line("echo co''de $?")
wait_for(r"code 9")

# Sent to the background it goes on; brought back it is the same command.
line(f"{RUN} sh -c 'echo rea''dy; read -r word; echo \"wo''rd=$word\"'")
wait_for("ready")
os.write(shell, b"\x1a")
wait_for("Stopped")
line("fg")
wait_for("read -r word")
line("given")
wait_for("word=given")
line("exit")
