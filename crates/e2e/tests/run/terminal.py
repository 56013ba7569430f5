"""Types into an interactive shell on a pty and checks what comes back: Ctrl-C, Ctrl-Z, fg, an inner shell."""
import os, pty, re, select, sys, time

weir, manifests = sys.argv[1:]
RUN = f"{weir} run --manifests {manifests} --"
said = ""


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
        if select.select([shell], [], [], 0.1)[0]:
            said += os.read(shell, 65536).decode(errors="replace")


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
time.sleep(0.2)
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
time.sleep(0.3)
os.write(shell, b"\x1a")
wait_for(r"Stopped.*sleep 1000")
line("kill -KILL %1; sleep 0.3")
line("")
wait_for("Killed")
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
