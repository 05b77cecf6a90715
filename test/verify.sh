#!/bin/bash
# Installs what the tests need and runs all of them: checks, unit tests, tests on real mounts and guests; the core of
# them once more on other versions of Node and, as root, as an ordinary user. As root several pieces of it run at a time.
# Prints each failure once more at the end, and one line of totals. Continuous integration runs this.
set -euo pipefail
cd "$(dirname "$0")/.."

# The tests that run as an ordinary user need a tree that he can read; a clone in root's home is none. Nor is one in /tmp,
# which each piece has for itself.
if [ "$(id -u)" = 0 ] && { ! runuser -u nobody -- test -r package.json || [[ $PWD/ == /tmp/* ]]; }; then
  readable=$(mktemp -d /var/tmp/cowfs-tree-XXXXXX)
  chmod 755 "$readable"
  cp -a . "$readable"
  status=0
  bash "$readable/test/verify.sh" || status=$?
  rm -rf "$readable"
  exit $status
fi

bash test/install.sh
[ -d node_modules ] || npm ci
npm run build
npm run check

# The versions of Node that are maintained, besides the one that runs this.
jobs=()
for major in 20 22 24; do
  [ "$(node -p 'process.versions.node.split(".")[0]')" = $major ] || jobs+=("node-$major")
done
# Of root's, some of what tests do is to wait for a disk: one more than there are processors, which keeps these busy. An
# ordinary user's pieces would see each other's disks.
lanes=1
if [ "$(id -u)" = 0 ]; then
  lanes=$(($(nproc) + 1))
  jobs+=(nobody)
fi
shards=24
for shard in $(seq $shards); do jobs+=("shard-$shard-of-$shards"); done

# Not in /tmp, which each piece has for itself.
RESULTS=$(mktemp -d /var/tmp/cowfs-results-XXXXXX)
export RESULTS
trap 'rm -rf "$RESULTS"' EXIT
# The ordinary user writes his there, too.
chmod 1777 "$RESULTS"
status=0
printf '%s\n' "${jobs[@]}" | xargs -P "$lanes" -I{} bash test/verify-job.sh {} || status=1
node test/verify-totals.mjs "$RESULTS" "${jobs[@]}" || status=1
exit $status
