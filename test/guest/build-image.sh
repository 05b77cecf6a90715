#!/bin/bash
# Builds the small bootable disk image for end-to-end tests: a BIOS machine
# with one IDE disk, Debian's cloud kernel, busybox and guest-init (which see
# for what the guest prints).  For the tests and whoever debugs them; it does
# not boot anything, installs nothing on the host, and needs no root.
#
#   build-image.sh            build if not cached; print the cached image's path
#   build-image.sh OUTPUT     put a fresh copy of it at OUTPUT; print that path
#
# The path is the last line on stdout, everything else goes to stderr.  The
# cached image is shared: boot copies of it, or use -snapshot.
# Exit: 0 done; 1 a step failed; 2 usage; 3 packages missing; 4 download failed.
#
# To boot it (software emulation; qemu exits by itself):
#
#   qemu-system-x86_64 -accel tcg -cpu max -m 256 -nodefaults -display none \
#     -serial stdio -no-reboot -drive file=DISK,format=raw </dev/null
#
# -hda DISK is the same disk (IDE, on the default "pc" machine), and so is
# if=virtio; q35 is of no use, as this kernel has no AHCI driver.  With plain
# -nographic the serial console also carries the firmware's and boot loader's
# screens.  Lines end in CR LF.  qemu's exit code is 0 even after a guest
# panic: what counts is the line "GUEST done".
#
# Measured on 2 cores, from qemu's start to its exit: 4.3 s; with plain
# -nographic -hda 5 s; with if=virtio 2.6 s.  The firmware reads kernel and
# initrd off an IDE disk one sector at a time, each a round trip between qemu's
# threads: with 2 busy loops beside it 8 s, with 4 of them 64 s (virtio: 10 s).
# So do not run IDE boots beside other heavy work, and give them minutes.
set -euo pipefail
export LC_ALL=C PATH="$PATH:/usr/sbin:/sbin"

# Sizes in MiB.  The boot partition starts at 1, the root partition follows it.
boot_size=24
root_size=48
# The last two: on a busy host the emulated timers are late, and the kernel
# must not conclude that they are broken.
kernel_args="console=ttyS0 quiet panic=-1 reboot=t mitigations=off tsc=reliable no_timer_check"

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)

say() { echo "build-image: $*" >&2; }

if [ $# -gt 1 ] || [[ ${1-} == -* ]]; then
	echo "usage: build-image.sh [OUTPUT]" >&2
	exit 2
fi
output=${1:+$(realpath -m -- "$1")}

missing=()
while read -r package _; do
	[[ -n $package && $package != \#* ]] || continue
	[[ $(dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null) == installed ]] ||
		missing+=("$package")
done <"$here/packages.txt"
if [ ${#missing[@]} -gt 0 ]; then
	echo "install: apt-get install ${missing[*]}" >&2
	exit 3
fi

# The candidate's field of a package in apt's lists; empty if not known.
apt_field() {
	apt-cache show --no-all-versions "$1" 2>/dev/null | sed -n "s/^$2: //p" | head -n 1 || true
}

# linux-image-cloud-amd64 is an empty package depending on the real one.
kernel_package=$(apt_field linux-image-cloud-amd64 Depends | cut -d ' ' -f 1)
kernel_version=$(apt_field linux-image-cloud-amd64 Version)
busybox_version=$(apt_field busybox-static Version)
if [ -z "$kernel_package" ] || [ -z "$busybox_version" ]; then
	say "apt knows no kernel or busybox package (apt-get update?)"
	exit 4
fi

key=$({
	echo "$kernel_package $kernel_version $busybox_version"
	cd "$here" && sha256sum build-image.sh guest-init initrd-init
} | sha256sum | cut -c 1-12)
cache=$(realpath -m -- "${XDG_CACHE_HOME:-$HOME/.cache}/cowfs-test")
image=$cache/guest-$key.img

# All temporary files are in the directory of the file they become, so that the
# rename at the end is atomic.
temps=()
trap '[ ${#temps[@]} -eq 0 ] || rm -rf -- "${temps[@]}"' EXIT
trap 'exit 1' HUP INT TERM

deliver() {
	if [ -n "$output" ]; then
		local copy
		copy=$(mktemp "$output.XXXXXX")
		temps+=("$copy")
		cp --sparse=always --reflink=auto "$image" "$copy"
		chmod "$(printf '%o' $((0666 & ~$(umask))))" "$copy"
		mv -T "$copy" "$output"
		echo "$output"
	else
		echo "$image"
	fi
}

if [ -e "$image" ]; then
	deliver
	exit 0
fi

# Fixed times and identifiers: images of the same inputs differ in no more than
# a few timestamps.
export SOURCE_DATE_EPOCH=1700000000 E2FSPROGS_FAKE_TIME=1700000000
root_uuid=c0f5c0f5-0000-4000-8000-000000000001
volume_id=c0f5c0f5

mkdir -p "$cache"
# What earlier runs that were killed outright (no trap) have left.
find "$cache" -maxdepth 1 -name 'guest-*.img.??????' -mmin +60 -exec rm -rf {} +
work=$(mktemp -d "$image.XXXXXX")
temps+=("$work")
cd "$work"

say "downloading $kernel_package and busybox-static"
apt-get -qq download "$kernel_package=$kernel_version" \
	"busybox-static=$busybox_version" >&2 || exit 4
for package in *.deb; do
	dpkg-deb -x "$package" unpacked
done
modules=(unpacked/lib/modules/*)

# A directory tree with busybox under the names that the two inits use.
base_tree() {
	mkdir -p "$1"/{bin,sbin,proc,sys,dev}
	cp unpacked/bin/busybox "$1/bin/busybox"
	local name
	for name in sh "${@:2}"; do
		ln -s busybox "$1/bin/$name"
	done
}

# Copies the module $1 into the directory $2, after all that it depends on.
# (The kernel package has no modules.dep; depmod makes it on installation.)
add_module() {
	local file dependency number
	[ -z "$(find "$2" -name "??-$1.ko")" ] || return 0
	file=$(find "${modules[0]}" -name "$1.ko" -o -name "${1//_/-}.ko")
	if [ -z "$file" ]; then
		say "no module $1 in $kernel_package"
		return 1
	fi
	for dependency in $(tr '\0' '\n' <"$file" | sed -n 's/^depends=//p' | tr ',' ' '); do
		add_module "$dependency" "$2"
	done
	number=$(find "$2" -name '*.ko' | wc -l)
	cp "$file" "$2/$(printf '%02d' "$number")-$1.ko"
}

say "building initrd"
base_tree initrd cat insmod mount poweroff switch_root tr usleep
mkdir -p initrd/root initrd/modules/{ide,virtio}
for module in ata_piix sd_mod; do add_module $module initrd/modules/ide; done
for module in virtio_pci virtio_blk; do add_module $module initrd/modules/virtio; done
install -m 755 "$here/initrd-init" initrd/init
find initrd -exec touch -h -d "@$SOURCE_DATE_EPOCH" {} +
# Not compressed: unpacking costs the emulated CPU what reading less saves.
(cd initrd && find . | sort | cpio --quiet -o -H newc --owner=0:0 --reproducible) >initrd.img

say "building root partition"
base_tree root cat cut grep head mount mv poweroff sha256sum sync
mkdir -p root/tmp root/var/data
echo 0 >root/var/boot-count
install -m 755 "$here/guest-init" root/sbin/init
find root -exec touch -h -d "@$SOURCE_DATE_EPOCH" {} +

say "building disk"
boot_start=2048
root_start=$((boot_start + boot_size * 2048))
truncate -s $((1 + boot_size + root_size))M disk
sfdisk --quiet disk <<END >&2
label: dos
label-id: 0x$volume_id
start=$boot_start, size=$((boot_size * 2048)), type=e, bootable
start=$root_start, size=$((root_size * 2048)), type=83
END
# Boot code, up to where the disk id and the partition table begin.
dd if=/usr/lib/syslinux/mbr/mbr.bin of=disk bs=440 count=1 conv=notrunc status=none

mkfs.fat -F 16 -i $volume_id -n BOOT -h $boot_start --offset $boot_start \
	disk $((boot_size * 1024)) >&2
cat >syslinux.cfg <<END
DEFAULT guest
PROMPT 0
TIMEOUT 1
LABEL guest
 LINUX vmlinuz
 INITRD initrd.img
 APPEND $kernel_args
END
cp unpacked/boot/vmlinuz-* vmlinuz
touch -d "@$SOURCE_DATE_EPOCH" syslinux.cfg vmlinuz initrd.img
mcopy -m -i disk@@$((boot_start * 512)) syslinux.cfg vmlinuz initrd.img ::
syslinux --install --offset $((boot_start * 512)) disk

# Lazy initialisation would have the guest write for as long as it runs.
mke2fs -q -t ext4 -b 4096 -m 0 -J size=4 -U $root_uuid -d root \
	-E "offset=$((root_start * 512)),hash_seed=$root_uuid,root_owner=0:0,lazy_itable_init=0,lazy_journal_init=0" \
	disk ${root_size}M >&2
# mke2fs keeps the owner of the files it copies: whoever runs this.
find root -mindepth 1 -printf '/%P\n' | sort | while read -r path; do
	printf 'set_inode_field "%s" %s 0\n' "$path" uid "$path" gid
done >owners
debugfs -w -f owners "disk?offset=$((root_start * 512))" >/dev/null

sync disk
mv -T disk "$image"
say "built $image"
deliver
