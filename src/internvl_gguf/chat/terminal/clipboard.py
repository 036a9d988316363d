"""Reads the picture in the clipboard, with a program that this system has for it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from internvl_gguf.errors import PictureError

_TIMEOUT = 10.0  # seconds; a program that owns the clipboard may be asked for the picture first


@dataclass(frozen=True)
class _Tool:
    """A program that prints the clipboard's picture.

    Attributes:
        name: name of the program.
        command: command line that writes a PNG to stdout, or its hexadecimal digits.
        is_hexadecimal: whether it writes digits.
    """

    name: str
    command: tuple[str, ...]
    is_hexadecimal: bool = False


_WAYLAND = _Tool("wl-paste", ("wl-paste", "--no-newline", "--type", "image/png"))
_X11 = _Tool("xclip", ("xclip", "-selection", "clipboard", "-target", "image/png", "-out"))
_MAC = _Tool("pngpaste", ("pngpaste", "-"))
_MAC_SCRIPT = _Tool("osascript", ("osascript", "-e", "the clipboard as «class PNGf»"), is_hexadecimal=True)
_POWERSHELL = (
    "Add-Type -AssemblyName System.Windows.Forms,System.Drawing;"
    "$p=[Windows.Forms.Clipboard]::GetImage(); if($p){$m=New-Object IO.MemoryStream;"
    "$p.Save($m,[Drawing.Imaging.ImageFormat]::Png);[BitConverter]::ToString($m.ToArray()).Replace('-','')}"
)
_WINDOWS = _Tool("powershell", ("powershell", "-NoProfile", "-STA", "-Command", _POWERSHELL), is_hexadecimal=True)


def read_clipboard(platform: str = sys.platform, environment: Mapping[str, str] = os.environ) -> bytes:
    """Return the bytes of the picture in the clipboard.

    Raises:
        PictureError: there is none, or no program to read it; the hint says which to install.
    """
    tools, to_install = _tools(platform, environment)
    present = [tool for tool in tools if shutil.which(tool.command[0])]
    if not present:
        raise PictureError("Nothing here can read the clipboard.", to_install)
    for tool in present:
        data = _output(tool)
        if data:
            return data
    raise PictureError("There is no picture in the clipboard.", "Copy one, or give its path: /image PATH.")


def _tools(platform: str, environment: Mapping[str, str]) -> tuple[Sequence[_Tool], str]:
    """Return the programs to try, and a hint for the user if none of them is installed."""
    if platform == "darwin":
        return (_MAC, _MAC_SCRIPT), "Install pngpaste: brew install pngpaste."
    if platform == "win32":
        return (_WINDOWS,), "Give the picture's path: /image PATH."
    if environment.get("WAYLAND_DISPLAY"):
        return (_WAYLAND, _X11), "Install wl-clipboard, which has wl-paste."
    if environment.get("DISPLAY"):
        return (_X11,), "Install xclip."
    if environment.get("WSL_DISTRO_NAME"):
        windows = _Tool("powershell", ("powershell.exe", *_WINDOWS.command[1:]), is_hexadecimal=True)
        return (windows,), "Give the picture's path: /image PATH."
    return (), "There is no display here, as over ssh: give the picture's path, /image PATH."


def _output(tool: _Tool) -> bytes:
    """Return the output of a program; b"" if the clipboard has no picture."""
    try:
        done = subprocess.run(tool.command, capture_output=True, timeout=_TIMEOUT, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return b""
    if done.returncode != 0 or not tool.is_hexadecimal:
        return done.stdout if done.returncode == 0 else b""
    # AppleScript writes «data PNGf89504E47…»
    digits = done.stdout.decode("ascii", "ignore").rpartition("PNGf")[2].strip()
    try:
        return bytes.fromhex(digits)
    except ValueError:
        return b""
