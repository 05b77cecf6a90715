import { execFileSync } from 'node:child_process';
import { closeSync, openSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { gzipSync } from 'node:zlib';
import { describe, expect, test } from 'vitest';
import { detectFormat, formatWarning } from '../../src/base/format.ts';
import { lacks, run, scratch } from '../harness.ts';

/** A head of 128 bytes with these at an offset. */
function head(text: string, offset = 0): Buffer {
  const bytes = Buffer.alloc(128, 0x90);
  bytes.write(text, offset, 'latin1');
  return bytes;
}

describe('first bytes', () => {
  test.each([
    ['qcow2', 'qcow2', head('QFI\xfb\0\0\0\x03')],
    ['qed', 'qed', head('QED\0')],
    ['VMDK', 'vmdk', head('KDMV')],
    ['VMDK', 'vmdk', head('COWD')],
    ['VMDK', 'vmdk', head('# Disk DescriptorFile\nversion=1\n')],
    ['VDI', 'vdi', head('\x7f\x10\xda\xbe', 64)],
    ['VHDX', 'vhdx', head('vhdxfile')],
    ['gzip', undefined, head('\x1f\x8b\x08')],
    ['xz', undefined, head('\xfd7zXZ\0')],
    ['zstd', undefined, head('\x28\xb5\x2f\xfd')],
  ])('%s', (name, qemuFormat, bytes) => {
    expect(detectFormat(bytes)).toMatchObject({ name, qemuFormat });
    // One byte off, and it is raw.
    expect(detectFormat(Buffer.concat([Buffer.from([0]), bytes.subarray(0, 127)]))).toBe(undefined);
  });

  test.each<[string, Buffer]>([
    ['nothing', Buffer.alloc(0)],
    ['zeros', Buffer.alloc(128)],
    ['less than a magic', Buffer.from('QF')],
    ['almost a VDI', head('\x7f\x10\xda', 64).subarray(0, 67)],
    ['a boot sector', head('\xeb\x63\x90')],
    ['text that begins as a descriptor does', head('# Disk Descriptor\n')],
  ])('%s is raw', (_, bytes) => {
    expect(detectFormat(bytes)).toBe(undefined);
  });
});

function warningOf(path: string): string | undefined {
  const fd = openSync(path, 'r');
  try {
    return formatWarning(path, fd);
  } finally {
    closeSync(fd);
  }
}

const noQemu = lacks('qemu-img');
if (noQemu !== undefined) console.warn(`images made by qemu-img are skipped: ${noQemu}`);

describe.skipIf(noQemu !== undefined)('images as qemu-img makes them', () => {
  const made: [format: string, options: string, detected: string][] = [
    ['qcow2', 'compat=1.1', 'qcow2'],
    ['qcow2', 'compat=0.10', 'qcow2'],
    ['qed', '', 'qed'],
    ['vmdk', 'subformat=monolithicSparse', 'vmdk'],
    ['vmdk', 'subformat=streamOptimized', 'vmdk'],
    ['vmdk', 'subformat=monolithicFlat', 'vmdk'],
    ['vmdk', 'subformat=twoGbMaxExtentSparse', 'vmdk'],
    ['vdi', '', 'vdi'],
    ['vhdx', '', 'vhdx'],
    // The first version has the same first four bytes, and a name of its own.
    ['qcow', '', 'qcow'],
    ['vpc', 'subformat=dynamic', 'vpc'],
  ];

  test.each(made)('%s %s', (format, options, detected) => {
    const path = join(scratch(), 'image');
    const args = ['create', '-q', '-f', format, ...(options === '' ? [] : ['-o', options]), path, '10M'];
    const { status, stderr } = run('qemu-img', args);
    if (status !== 0) {
      console.warn(`${format} is skipped: ${stderr.trim()}`);
      return;
    }
    const warning = warningOf(path);
    expect(warning).toMatch(new RegExp(`^${path} is .*, not raw, and is shown as it is; `));
    // What the warning tells to give is what QEMU itself makes of it.
    expect(warning).toContain(`give qemu format=${detected} `);
    expect(JSON.parse(execFileSync('qemu-img', ['info', '--output=json', path], { encoding: 'utf8' }))).toMatchObject({
      format: detected,
    });
  });

  test('a raw one is as it should be', () => {
    const path = join(scratch(), 'image');
    execFileSync('qemu-img', ['create', '-q', '-f', 'raw', path, '10M']);
    expect(warningOf(path)).toBe(undefined);
  });
});

test('a compressed image: unpack it', () => {
  const path = join(scratch(), 'image.gz');
  writeFileSync(path, gzipSync(Buffer.alloc(10_000)));
  expect(warningOf(path)).toBe(
    `${path} is gzip-compressed and is shown as it is; unpack it first to get the disk inside`,
  );
});

test('a file of one byte', () => {
  const path = join(scratch(), 'image');
  writeFileSync(path, 'Q');
  expect(warningOf(path)).toBe(undefined);
});
