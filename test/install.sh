#!/bin/bash
# Installs what the tests need on Debian: as root by apt-get, otherwise it says what to install. For test/verify.sh and
# for people. It changes nothing that is there already. Lists of more packages can be given, such as bench/packages.txt.
set -euo pipefail
cd "$(dirname "$0")"

wanted=$(cat packages.txt guest/packages.txt "$@" | sed 's/#.*//' | xargs -n1 | sort -u)
missing=()
for package in $wanted; do
  [ "$(dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null)" = installed ] || missing+=("$package")
done

if [ ${#missing[@]} -gt 0 ]; then
  if [ "$(id -u)" != 0 ]; then
    echo "missing packages; install them as root: apt-get install --no-install-recommends ${missing[*]}" >&2
    exit 3
  fi
  export DEBIAN_FRONTEND=noninteractive
  apt-get update -qq
  apt-get install -y -qq --no-install-recommends "${missing[@]}"
fi

# The guest image is made of packages that are only downloaded: apt must know them.
if [ "$(id -u)" = 0 ] && ! apt-cache show linux-image-cloud-amd64 >/dev/null 2>&1; then apt-get update -qq; fi

# udev gives the device this mode on every Debian; machines without udev (containers) may have it for root alone.
if [ "$(id -u)" = 0 ] && [ -c /dev/fuse ] && [ "$(stat -c %a /dev/fuse)" != 666 ]; then
  chmod 0666 /dev/fuse
fi
