#!/bin/bash
# The main job on an image that it makes itself: mount, change through the disk, unmount, and the image is as it was.
# For people who try cowfs for the first time; needs Node and /dev/fuse, boots a guest where qemu is installed.
set -euo pipefail
cd "$(dirname "$0")/.."

cowfs() { bin/cowfs "$@"; }
say() { printf '\n== %s\n' "$*"; }
sha256() { sha256sum <"$1" | cut -d ' ' -f 1; }
run() { printf '$ %s\n' "$*"; "$@"; }

scratch=$(mktemp -d "${TMPDIR:-/tmp}/cowfs-demo-XXXXXX")
cleanup() {
  if grep -qF " $scratch/mnt " /proc/self/mountinfo; then cowfs unmount --force "$scratch/mnt"; fi
  rm -rf "$scratch"
}
trap cleanup EXIT

# A boot sector that adds 1 to the first byte of the disk's second sector through the BIOS, prints
# "hello from the guest, boot N" on the serial port and switches the machine off. Assembled from:
#   read LBA 1 to 0x7e00 (int 13h, ah=2); incb 0x7e00; write it back (ah=3); print the text and the digit (port 3f8h);
#   outw 0x2000 to port 604h (the PIIX4's power management)
boot_sector='31c08ed88ec08ed0bc007ce82d0002fe06007ee8250003be527cac84c07405e82b00ebf6a0007e0430e82100b00ae81c00ba0406b8
0020eff4ebfd5eac5688c4b001bb007eb9020030f6cd13c3baf803eec368656c6c6f2066726f6d207468652067756573742c20626f6f742000'
bytes=$(tr -d '\n' <<<"$boot_sector" | sed 's/../\\x&/g')

say 'a base image: 64 MiB, with a boot sector'
truncate -s 64M "$scratch/base.img"
printf '%b' "$bytes" | dd of="$scratch/base.img" conv=notrunc status=none
printf '\x55\xaa' | dd of="$scratch/base.img" bs=1 seek=510 conv=notrunc status=none
mkdir "$scratch/mnt"
before=$(sha256 "$scratch/base.img")
echo "sha256 $before"

say 'mounted: a disk to write to'
run cowfs mount "$scratch/base.img" "$scratch/mnt"
run ls -l "$scratch/mnt"

say 'changed through the disk'
head -c 1M /dev/urandom | dd of="$scratch/mnt/disk.raw" bs=1M seek=8 conv=notrunc,fsync status=none
if command -v qemu-system-x86_64 >/dev/null; then
  for _ in 1 2; do
    run timeout 60 qemu-system-x86_64 -m 32 -display none -monitor none -serial stdio \
      -drive "file=$scratch/mnt/disk.raw,format=raw"
  done
else
  echo 'qemu is not installed, so nothing is booted here (apt-get install qemu-system-x86)'
fi
run cowfs status "$scratch/mnt"
after=$(sha256 "$scratch/mnt/disk.raw")
echo "sha256 of the disk now: $after"
[ "$before" != "$after" ]

say 'unmounted: the base is as it was'
run cowfs unmount "$scratch/mnt"
now=$(sha256 "$scratch/base.img")
echo "sha256 $now"
if [ "$before" != "$now" ]; then
  echo 'THE BASE CHANGED' >&2
  exit 1
fi
echo 'unchanged'
