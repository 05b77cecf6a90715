#!/bin/bash
# One piece of what test/verify.sh runs, whole: `shard-I-of-N` of all tests, `nobody` for the core of them as an ordinary
# user, `node-N` for the core on another version of Node. Several run side by side: as root each sees only its own mounts,
# its own /run/cowfs and its own /tmp, so that none finds (or takes down) the disks of another. Its log is printed in one
# piece when it ends; its results go to $RESULTS/NAME.json.
set -euo pipefail
name=$1

if [ "$(id -u)" = 0 ] && [ "${2:-}" != alone ]; then
  mkdir -p /run/cowfs
  exec unshare --mount --propagation private -- bash "$0" "$name" alone
fi

home=$(mktemp -d /var/tmp/cowfs-verify-XXXXXX)
log=$home/log
: >"$log"
trap 'cat "$log"; rm -rf "$home"' EXIT
if [ "$(id -u)" = 0 ]; then
  mount -t tmpfs -o mode=700 cowfs-verify /run/cowfs
  mkdir -m 1777 "$home/tmp"
  mount --bind "$home/tmp" /tmp
fi

core=(integration/smoke integration/run.)
# Node would read this file at each of its starts, a third of what one takes. Only npm speaks to the outside.
as=(env)
if [ -n "${NODE_EXTRA_CA_CERTS:-}" ]; then
  as+=(-u NODE_EXTRA_CA_CERTS npm_config_cafile="$NODE_EXTRA_CA_CERTS")
fi
selection=()
case $name in
shard-*-of-*)
  IFS=- read -r _ index _ count <<<"$name"
  selection=("--shard=$index/$count")
  ;;
nobody)
  # What an ordinary user has to have of his own: a home, a place to write, a tree to read.
  chmod 755 "$home"
  mkdir "$home/nobody"
  chown nobody "$home/nobody"
  as=(runuser -u nobody -- "${as[@]}" HOME="$home/nobody" TMPDIR="$home/nobody" COWFS_TEST_DIR="$home/nobody")
  selection=(--project integration "${core[@]}" integration/json integration/names integration/shape integration/registry
    property/concurrent)
  ;;
node-*)
  bin=$(bash test/other-node.sh "${name#node-}")
  as=("${as[@]}" PATH="$bin:$PATH" COWFS_FUZZ_REQUESTS=100000 COWFS_MODES=of-node)
  # Without what asks the same of every version, and takes minutes.
  selection=(--project unit --project integration "${core[@]}" lib/ sys/ base/ overlay/ fs/ fuse/ transport/ cli/ daemon/
    conformance/ integration/killed. integration/fuse-native-ends --exclude '**/overlay/export/qcow2.test.ts'
    --exclude '**/overlay/file/{damage,damage-flips,crash-replay}.test.ts')
  ;;
*)
  echo "$0: no piece is called $name" >&2
  exit 2
  ;;
esac

status=0
{
  echo "== $name, node $("${as[@]}" node --version)"
  "${as[@]}" node node_modules/vitest/vitest.mjs run --configLoader runner --config test/vitest.config.ts \
    --reporter=default --reporter=json --outputFile.json="$RESULTS/$name.json" "${selection[@]}"
} >"$log" 2>&1 || status=$?
exit $status
