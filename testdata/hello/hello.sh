#!/bin/sh
# Shows that this runs in a machine of its own, on a directory of the host.
set -eu
cd "$(dirname "$0")"

echo "kernel: $(uname -srm)"
echo "user:   $(id -un) ($(id -u)) on $(uname -n)"
echo "shared: $PWD"
ls -l

printf 'Written by %s under Linux %s on %s.\n' "$(id -un)" "$(uname -r)" "$(date -u +%FT%TZ)" >written-by-guest.txt
echo "wrote:  $PWD/written-by-guest.txt"
