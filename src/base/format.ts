/**
 * Recognises images that are not raw by their first bytes. The base is shown byte for byte all the same; the commands
 * warn, because a program that takes the disk for raw would see the container and not the disk inside.
 */
import { readSync } from 'node:fs';

interface Magic {
  /** As the field calls it. */
  readonly name: string;
  /** What `qemu-system -drive format=` takes; undefined for what QEMU does not know. */
  readonly qemuFormat: string | undefined;
  readonly offset: number;
  readonly bytes: Buffer;
}

/** `overlay/file/FORMAT.md` */
const OVERLAY = 'overlay of cowfs';

const MAGICS: readonly Magic[] = [
  { name: OVERLAY, qemuFormat: undefined, offset: 0, bytes: Buffer.from('COWFS\r\n\x1a', 'latin1') },
  // qemu block/qcow.c (version 1), docs/interop/qcow2.txt (2 and 3)
  { name: 'qcow', qemuFormat: 'qcow', offset: 0, bytes: Buffer.from('QFI\xfb\0\0\0\x01', 'latin1') },
  {
    name: 'qcow2',
    qemuFormat: 'qcow2',
    offset: 0,
    bytes: Buffer.from('QFI\xfb', 'latin1'),
  },
  // qemu docs/interop/qed_spec.txt
  {
    name: 'qed',
    qemuFormat: 'qed',
    offset: 0,
    bytes: Buffer.from('QED\0', 'latin1'),
  },
  // VMware Virtual Disk Format 5.0: sparse extent, ESX COW disk, descriptor file
  {
    name: 'VMDK',
    qemuFormat: 'vmdk',
    offset: 0,
    bytes: Buffer.from('KDMV', 'latin1'),
  },
  {
    name: 'VMDK',
    qemuFormat: 'vmdk',
    offset: 0,
    bytes: Buffer.from('COWD', 'latin1'),
  },
  {
    name: 'VMDK',
    qemuFormat: 'vmdk',
    offset: 0,
    bytes: Buffer.from('# Disk DescriptorFile', 'latin1'),
  },
  // qemu block/vdi.c: signature 0xbeda107f, little endian, after the 64 bytes of text
  {
    name: 'VDI',
    qemuFormat: 'vdi',
    offset: 64,
    bytes: Buffer.from([0x7f, 0x10, 0xda, 0xbe]),
  },
  // Microsoft VHD 1.0: dynamic and differencing images begin with a copy of the footer
  { name: 'VHD', qemuFormat: 'vpc', offset: 0, bytes: Buffer.from('conectix', 'latin1') },
  // MS-VHDX 2.2.1
  {
    name: 'VHDX',
    qemuFormat: 'vhdx',
    offset: 0,
    bytes: Buffer.from('vhdxfile', 'latin1'),
  },
  // RFC 1952, the .xz file format 2.1.1.1, RFC 8878 3.1.1
  {
    name: 'gzip',
    qemuFormat: undefined,
    offset: 0,
    bytes: Buffer.from([0x1f, 0x8b, 0x08]),
  },
  {
    name: 'xz',
    qemuFormat: undefined,
    offset: 0,
    bytes: Buffer.from([0xfd, 0x37, 0x7a, 0x58, 0x5a, 0x00]),
  },
  {
    name: 'zstd',
    qemuFormat: undefined,
    offset: 0,
    bytes: Buffer.from([0x28, 0xb5, 0x2f, 0xfd]),
  },
];

const PROBE_BYTES = 128;

/** One line for the user when the image is no raw disk; undefined when nothing speaks against it. */
export function formatWarning(path: string, fd: number): string | undefined {
  const head = Buffer.alloc(PROBE_BYTES);
  const length = readSync(fd, head, 0, head.length, 0);
  const found = detectFormat(head.subarray(0, length));
  if (found === undefined) return undefined;
  if (found.name === OVERLAY) {
    return `${path} is a cowfs overlay and is shown as it is; to go on with its disk: cowfs mount <its base> <mountpoint> --overlay ${path}`;
  }
  if (found.qemuFormat === undefined) {
    return `${path} is ${found.name}-compressed and is shown as it is; unpack it first to get the disk inside`;
  }
  const extension = found.qemuFormat;
  return (
    `${path} is ${found.name}, not raw, and is shown as it is; ` +
    `give qemu format=${found.qemuFormat} (--name disk.${extension} reads better), or convert it first`
  );
}

export function detectFormat(head: Buffer): Pick<Magic, 'name' | 'qemuFormat'> | undefined {
  return MAGICS.find(({ offset, bytes }) => head.subarray(offset, offset + bytes.length).equals(bytes));
}
