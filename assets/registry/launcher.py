"""`accelerate launch` on one machine, with nothing that listens beyond it.

Belongs here: where the launcher and its processes listen. Not here: what is launched (`processes.py`).

Torch's store, by which the processes find each other, would listen on all addresses, and asks nobody who they are; no
option of accelerate or torch changes that. So it is given a socket that is already bound to 127.0.0.1.
"""

import os
import socket
import sys
from collections.abc import Sequence
from functools import partial
from typing import Any

from accelerate.commands import launch
from torch.distributed import TCPStore  # type: ignore[attr-defined]  # torch declares no exports
from torch.distributed.elastic.rendezvous import static_tcp_rendezvous

INTERFACES = ("GLOO_SOCKET_IFNAME", "NCCL_SOCKET_IFNAME")
"""The interface on which processes exchange tensors; by default the one of the machine's name."""
LOOPBACK = 1
"""The loopback interface's number, on Linux and macOS."""


def main(arguments: Sequence[str]) -> None:
    """Launch by accelerate's arguments, which leave out the port and the way of rendezvous."""
    os.environ.update(dict.fromkeys(INTERFACES, socket.if_indextoname(LOOPBACK)))
    bound = socket.socket()
    bound.bind(("127.0.0.1", 0))
    options = ["--rdzv_backend", "static", "--main_process_port", str(bound.getsockname()[1])]
    store: Any = partial(TCPStore, master_listen_fd=bound.detach())
    static_tcp_rendezvous.TCPStore = store  # type: ignore[attr-defined]
    launch.launch_command(launch.launch_command_parser().parse_args([*options, *arguments]))


if __name__ == "__main__":
    main(sys.argv[1:])
