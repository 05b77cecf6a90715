#!/bin/bash
# Installs what the tests need and runs all of them: checks, unit tests, tests on real mounts and guests; the core of
# them once more on other versions of Node and, as root, as an ordinary user. Prints one line of totals at the end.
# Continuous integration runs this.
set -euo pipefail
cd "$(dirname "$0")/.."

bash test/install.sh
[ -d node_modules ] || npm ci
npm run build
npm run check

as_nobody() { runuser -u nobody -- "$@"; }

# The tests that run as an ordinary user need a tree that he can read; a clone in root's home is none.
if [ "$(id -u)" = 0 ] && ! as_nobody test -r package.json; then
  readable=$(mktemp -d /var/tmp/cowfs-tree-XXXXXX)
  chmod 755 "$readable"
  cp -a . "$readable"
  status=0
  bash "$readable/test/verify.sh" || status=$?
  rm -rf "$readable"
  exit $status
fi

results=$(mktemp -d)
trap 'rm -rf "$results"' EXIT
status=0
vitest() {
  local name=$1
  shift
  "$@" node node_modules/vitest/vitest.mjs run --configLoader runner --config test/vitest.config.ts --reporter=default --reporter=json \
    --outputFile.json="$results/$name.json" "${selection[@]}" || status=1
}

selection=()
vitest all env
if [ "$(id -u)" = 0 ]; then
  echo '== the core once more, as the user nobody'
  # What an ordinary user has to have of his own: a home, a place to write, this tree to read.
  home=$(mktemp -d /var/tmp/cowfs-nobody-XXXXXX)
  trap 'rm -rf "$results" "$home"' EXIT
  chown nobody "$home" "$results"
  selection=(--project integration integration/smoke integration/run. integration/json integration/names
    integration/shape integration/registry property/concurrent)
  vitest nobody as_nobody env HOME="$home" TMPDIR="$home" COWFS_TEST_DIR="$home"
fi

# The versions of Node that are maintained, besides the one that runs this; the registry has each as a package.
for major in 20 22 24; do
  [ "$(node -p 'process.versions.node.split(".")[0]')" != $major ] || continue
  echo "== the core once more, on Node $major"
  package=node-linux-$(node -p 'process.arch')
  prefix=${XDG_CACHE_HOME:-$HOME/.cache}/cowfs-test/node-$major
  mkdir -p "$prefix"
  npm install --no-save --no-audit --no-fund --prefix "$prefix" "$package@$major"
  bin=$prefix/node_modules/$package/bin
  "$bin/node" --version
  selection=(--project unit --project integration lib/ sys/ base/ overlay/ fs/ fuse/ transport/ cli/ daemon/ conformance/
    integration/smoke integration/run. integration/killed. integration/fuse-native-ends)
  vitest "node-$major" env PATH="$bin:$PATH" COWFS_FUZZ_REQUESTS=100000
done

# Each failure once more, and the totals: a log's end says what is wrong, however long the log is.
node -e '
const { readFileSync } = require("node:fs");
const { basename, relative } = require("node:path");
const totals = { passed: 0, failed: 0, skipped: 0 };
for (const path of process.argv.slice(1)) {
  const run = JSON.parse(readFileSync(path, "utf8"));
  totals.passed += run.numPassedTests;
  totals.failed += run.numFailedTests;
  totals.skipped += run.numPendingTests + run.numTodoTests;
  for (const file of run.testResults) {
    const where = `FAILED (${basename(path, ".json")}) ${relative(process.cwd(), file.name)}`;
    const failed = file.assertionResults.filter((test) => test.status === "failed");
    for (const test of failed) console.log(`${where} > ${test.fullName}\n${test.failureMessages.join("\n").slice(0, 4000)}`);
    if (file.status === "failed" && failed.length === 0) console.log(`${where}\n${(file.message ?? "").slice(0, 4000)}`);
  }
}
console.log(`${totals.passed} passed, ${totals.failed} failed, ${totals.skipped} skipped`);
if (totals.passed === 0) process.exit(1);
' "$results"/*.json || status=1
exit $status
