#!/bin/bash
# Installs another version of Node than the one that runs this, as the npm registry has each as a package; prints where
# its `node` is. $1: the major version.
set -euo pipefail
package=node-linux-$(node -p 'process.arch')
prefix=${XDG_CACHE_HOME:-$HOME/.cache}/cowfs-test/node-$1
mkdir -p "$prefix"
npm install --no-save --no-audit --no-fund --prefix "$prefix" "$package@$1" >&2
echo "$prefix/node_modules/$package/bin"
