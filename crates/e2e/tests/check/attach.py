"""Loads an eBPF program that lets everything be, attaches it and stays; it goes with this process.

attach.py HOOK NAME TARGET: a hook as the kernel's tools call it, the program's name, a folder or a device."""
import ctypes, os, platform, signal, socket, struct, sys

hook, name, target = sys.argv[1:]

BPF = {"x86_64": 321, "aarch64": 280}[platform.machine()]
PROG_LOAD, LINK_CREATE = 5, 28
libc = ctypes.CDLL(None, use_errno=True)

# The program's type, how it is attached, and what it answers: go on.
SOCK_ADDR, SOCKOPT, SOCK_OPS, CGROUP_SKB, SK_LOOKUP, SCHED_CLS, XDP = 18, 25, 13, 8, 30, 3, 6
HOOKS = {
    "connect4": (SOCK_ADDR, 10, 1),
    "connect6": (SOCK_ADDR, 11, 1),
    "sendmsg4": (SOCK_ADDR, 14, 1),
    "getsockname4": (SOCK_ADDR, 31, 1),
    "getsockopt": (SOCKOPT, 21, 1),
    "sock_ops": (SOCK_OPS, 3, 1),
    "egress": (CGROUP_SKB, 1, 1),
    "sk_lookup": (SK_LOOKUP, 36, 1),
    "tcx": (SCHED_CLS, 46, -1),
    "tc": (SCHED_CLS, 0, -1),
    "xdp": (XDP, 37, 2),
}
kind, attach_type, answer = HOOKS[hook]


def bpf(command, attributes):
    attributes = ctypes.create_string_buffer(attributes.ljust(144, b"\0"), 144)
    result = libc.syscall(BPF, command, attributes, 144)
    if result < 0:
        sys.exit(f"bpf({command}): {os.strerror(ctypes.get_errno())}")
    return result


# r0 = answer; exit
code = struct.pack("<BBhi", 0xB7, 0, 0, answer) + struct.pack("<BBhi", 0x95, 0, 0, 0)
code = ctypes.create_string_buffer(code, len(code))
licence = ctypes.create_string_buffer(b"GPL")
program = bpf(PROG_LOAD, struct.pack(
    "<IIQQIIQII16sII", kind, 2, ctypes.addressof(code), ctypes.addressof(licence),
    0, 0, 0, 0, 0, name.encode(), 0, attach_type))


def by_filter(device):
    """A clsact queue, and the program as a filter that acts at its way in (RTM_NEWQDISC, RTM_NEWTFILTER)."""
    def attribute(kind, value):
        return struct.pack("<HH", len(value) + 4, kind) + value.ljust((len(value) + 3) & ~3, b"\0")

    def ask(kind, handle, parent, info, attributes):
        body = struct.pack("<BxxxiIII", 0, socket.if_nametoindex(device), handle, parent, info) + attributes
        netlink.send(struct.pack("<IHHII", 16 + len(body), kind, 0x605, 0, 0) + body)
        error = struct.unpack("<i", netlink.recv(4096)[16:20])[0]
        if error:
            sys.exit(f"message {kind}: {os.strerror(-error)}")

    netlink = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 0)
    ask(36, 0xFFFF0000, 0xFFFFFFF1, 0, attribute(1, b"clsact\0"))
    acts = struct.pack("<I", 1)
    options = attribute(6, struct.pack("<I", program)) + attribute(7, name.encode() + b"\0") + attribute(8, acts)
    ask(44, 0, 0xFFFFFFF2, 1 << 16 | socket.htons(3), attribute(1, b"bpf\0") + attribute(2, options))


if hook == "tc":
    by_filter(target)
elif hook in ("tcx", "xdp"):
    link = bpf(LINK_CREATE, struct.pack("<IIII", program, socket.if_nametoindex(target), attach_type, 0))
else:
    folder = os.open(target, os.O_RDONLY)
    link = bpf(LINK_CREATE, struct.pack("<IIII", program, folder, attach_type, 0))
print("attached", flush=True)
signal.pause()
