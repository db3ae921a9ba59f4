#!/bin/sh
# Prints the Python interpreter to build with, or says in one line what to install.
# Usage: find_python.sh [INTERPRETER]; without an argument the first that fits of those on the PATH.
#
# Triton's python backend needs numpy 1.26, which has builds for no Python newer than 3.12; its stub
# process loads libpython; the native module is compiled against Python.h.

check='
import os, sys, sysconfig
import ensurepip, venv
if not (3, 10) <= sys.version_info[:2] <= (3, 12):
    sys.exit(f"it is Python {sys.version_info[0]}.{sys.version_info[1]}")
library = sysconfig.get_config_var("INSTSONAME") or ""
folders = [sysconfig.get_config_var("LIBDIR") or "", os.path.join(sys.base_prefix, "lib")]
if ".so" not in library or not any(os.path.exists(os.path.join(f, library)) for f in folders):
    sys.exit("it has no shared libpython")
if not os.path.exists(os.path.join(sysconfig.get_path("include"), "Python.h")):
    sys.exit("it has no Python.h")
'
install='Debian, Ubuntu: apt install python3-dev python3-venv libpython3-dev; pyenv: PYTHON_CONFIGURE_OPTS=--enable-shared pyenv install 3.12'

if [ $# -gt 0 ]; then
    if ! reason=$("$1" -c "$check" 2>&1); then
        echo "PYTHON=$1 does not fit ($(echo "$reason" | tail -n 1)): give a Python 3.10, 3.11 or 3.12 with shared libpython, headers and venv ($install)" >&2
        exit 1
    fi
    command -v "$1"
    exit
fi
for candidate in python3 python3.12 python3.11 python3.10; do
    if "$candidate" -c "$check" >/dev/null 2>&1; then
        command -v "$candidate"
        exit
    fi
done
echo "No Python 3.10, 3.11 or 3.12 with shared libpython, headers and venv on the PATH: install one ($install) or name it with make PYTHON=/path/to/python" >&2
exit 1
