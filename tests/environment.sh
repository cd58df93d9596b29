# shellcheck shell=bash
# Copyright: (c) 2026, kvm.storage contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
#
# Sourced by the scripts of the test tooling, from the root of the collection.

# A pyenv shim answers for versions that it cannot start, so the real interpreters stand in for the shims.
_path=
while IFS= read -r -d : _entry; do
    case $_entry in
        */shims) ;;
        *) _path+=$_entry: ;;
    esac
done <<<"$PATH:"
for _entry in "$HOME"/.pyenv/versions/*/bin; do
    [ -d "$_entry" ] && _path+=$_entry:
done
PATH=${_path%:}
unset _path _entry

LC_ALL=C.UTF-8
PIP_DISABLE_PIP_VERSION_CHECK=1
ANSIBLE_COLLECTIONS_PATH=$PWD/.cache/collections
PYTHONPATH=$PWD/.cache/collections
export PATH LC_ALL PIP_DISABLE_PIP_VERSION_CHECK ANSIBLE_COLLECTIONS_PATH PYTHONPATH

# left_out NAME WHAT: notes what NAME does not do here; tests/summary.py lists it at the end
left_out() {
    mkdir -p .cache/left-out
    printf '%s\n' "$2" >>".cache/left-out/$1"
    printf 'left out: %s\n' "$2" >&2
}

# find_python 3.13 3.12 ...: the first of these versions that can make a virtual environment
find_python() {
    local version
    for version in "$@"; do
        if "python$version" -c 'import ensurepip, venv' 2>/dev/null; then
            command -v "python$version"
            return
        fi
    done
    return 1
}
