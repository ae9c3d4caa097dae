"""Whether a W&B run is logged online: what was typed, the environment, or a probe of the server."""

import os
import socket
from base64 import b64encode
from http.client import HTTPConnection, HTTPException
from typing import Literal
from urllib.parse import unquote, urlparse
from urllib.request import getproxies, proxy_bypass

from litdiffusion.errors import UserError

MODES = ("auto", "online", "offline", "disabled", "shared")
OLD = {"dryrun": "offline", "run": "online"}
"""W&B's former names of modes, which it still takes."""
SECONDS = 2


def chosen_mode(mode: str, offline: bool = False) -> Literal["online", "offline", "disabled", "shared"]:
    """The mode of a W&B run.

    A mode that is typed, or set as ``WANDB_MODE``, is taken as it is: "online" means online. "auto" goes online if an
    API key is known and the server answers within two seconds, through the proxy of the environment if there is one.

    Raises:
        UserError: an unknown mode, or ``offline`` with a mode that is online.
    """
    forget_empty_mode()
    if mode not in MODES and mode not in OLD:
        raise UserError(f"logger.wandb.mode must be one of {', '.join(MODES)}, got {mode!r}")
    mode = OLD.get(mode, mode)
    if offline:
        if mode in ("online", "shared"):
            raise UserError(f"logger.wandb.offline=true and logger.wandb.mode={mode} exclude each other; drop one")
        return "disabled" if mode == "disabled" else "offline"
    if mode != "auto":
        return mode
    if word := os.environ.get("WANDB_MODE"):
        if OLD.get(word, word) not in MODES[1:]:
            raise UserError(f"WANDB_MODE must be one of {', '.join(MODES[1:])}, or unset, got {word!r}")
        return OLD.get(word, word)
    return "online" if _has_key() and _reachable() else "offline"


def forget_empty_mode() -> None:
    """An empty ``WANDB_MODE`` counts as unset; W&B 0.31 refuses it, even beside an argument ``mode``."""
    if os.environ.get("WANDB_MODE") == "":
        del os.environ["WANDB_MODE"]


def _reachable() -> bool:
    """Whether W&B's server, or the proxy asked for it, accepts a connection within two seconds."""
    import wandb

    # Not wandb.Settings(), which reads neither WANDB_BASE_URL nor the file of `wandb login --host`.
    url = urlparse(wandb.setup().settings.base_url)
    port = url.port or (80 if url.scheme == "http" else 443)
    proxy = None if proxy_bypass(url.hostname) else getproxies().get(url.scheme) or getproxies().get("all")
    try:
        if proxy is not None:
            return _reachable_through(proxy, url.hostname, port)
        socket.create_connection((url.hostname, port), timeout=SECONDS).close()
    except (OSError, HTTPException):
        return False
    return True


def _reachable_through(proxy: str, host: str, port: int) -> bool:
    """Whether an HTTP proxy opens a tunnel to the server; a proxy of another kind is trusted."""
    address = urlparse(proxy if "://" in proxy else f"http://{proxy}")
    if address.scheme != "http":
        return True
    connection = HTTPConnection(address.hostname, address.port or 80, timeout=SECONDS)
    secret = f"{unquote(address.username or '')}:{unquote(address.password or '')}"
    login = {"Proxy-Authorization": f"Basic {b64encode(secret.encode()).decode()}"} if address.username else {}
    connection.set_tunnel(host, port, headers=login)
    try:
        connection.connect()
    finally:
        connection.close()
    return True


def _has_key() -> bool:
    import wandb

    return bool(wandb.login(prompt=False))
