import { execFileSync } from 'node:child_process';
import { existsSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, test } from 'vitest';
import * as abi from '../../src/fuse/abi.ts';
import { lacks, scratch } from '../harness.ts';

const HEADER = '/usr/include/linux/fuse.h';

test.each([
  ['fuse_in_header', abi.FUSE_IN_HEADER, 40],
  ['fuse_out_header', abi.FUSE_OUT_HEADER, 16],
  ['fuse_init_in', abi.FUSE_INIT_IN, 64],
  ['fuse_init_out', abi.FUSE_INIT_OUT, 64],
  ['fuse_attr', abi.FUSE_ATTR, 88],
  ['fuse_entry_out', abi.FUSE_ENTRY_OUT, 128],
  ['fuse_getattr_in', abi.FUSE_GETATTR_IN, 16],
  ['fuse_attr_out', abi.FUSE_ATTR_OUT, 104],
  ['fuse_mknod_in', abi.FUSE_MKNOD_IN, 16],
  ['fuse_mkdir_in', abi.FUSE_MKDIR_IN, 8],
  ['fuse_rename_in', abi.FUSE_RENAME_IN, 8],
  ['fuse_rename2_in', abi.FUSE_RENAME2_IN, 16],
  ['fuse_create_in', abi.FUSE_CREATE_IN, 16],
  ['fuse_forget_in', abi.FUSE_FORGET_IN, 8],
  ['fuse_batch_forget_in', abi.FUSE_BATCH_FORGET_IN, 8],
  ['fuse_forget_one', abi.FUSE_FORGET_ONE, 16],
  ['fuse_open_in', abi.FUSE_OPEN_IN, 8],
  ['fuse_open_out', abi.FUSE_OPEN_OUT, 16],
  ['fuse_read_in', abi.FUSE_READ_IN, 40],
  ['fuse_write_in', abi.FUSE_WRITE_IN, 40],
  ['fuse_write_out', abi.FUSE_WRITE_OUT, 8],
  ['fuse_setattr_in', abi.FUSE_SETATTR_IN, 88],
  ['fuse_release_in', abi.FUSE_RELEASE_IN, 24],
  ['fuse_fallocate_in', abi.FUSE_FALLOCATE_IN, 32],
  ['fuse_lseek_in', abi.FUSE_LSEEK_IN, 24],
  ['fuse_lseek_out', abi.FUSE_LSEEK_OUT, 8],
  ['fuse_statfs_out', abi.FUSE_STATFS_OUT, 80],
  ['fuse_dirent', abi.FUSE_DIRENT, 24],
])('%s', (_, table, bytes) => {
  expect(table.BYTES).toBe(bytes);
  const offsets = Object.entries(table)
    .filter(([name]) => name === name.toLowerCase())
    .map(([, offset]) => offset);
  expect(new Set(offsets).size).toBe(offsets.length);
  // A name of unknown length may stand at the very end.
  expect(Math.max(...offsets)).toBeLessThanOrEqual(bytes);
});

test('fuse_direntplus is an entry and a directory entry', () => {
  expect(abi.FUSE_ENTRY_OUT.BYTES + abi.FUSE_DIRENT.BYTES).toBe(152);
});

const missing = lacks('gcc') ?? (existsSync(HEADER) ? undefined : `no ${HEADER}`);
if (missing !== undefined) console.warn(`the comparison with ${HEADER} is skipped: ${missing}`);

/** A number of ours, what it is in C, and the word that the header has to know for it. */
interface Claim {
  readonly ours: number;
  readonly expression: string;
  readonly word: string;
}

/** Tables of offsets are those with BYTES; their names are the structures' in capitals. */
function layoutClaims(): Claim[] {
  return Object.entries(abi).flatMap(([name, table]) => {
    if (typeof table !== 'object' || !('BYTES' in table)) return [];
    const struct = name.toLowerCase();
    return Object.entries(table).flatMap(([field, ours]): Claim[] => {
      if (field === 'COMPAT_BYTES') return [];
      if (field === 'BYTES') return [{ ours, expression: `sizeof(struct ${struct})`, word: struct }];
      // Its fields are those of a structure within.
      if (struct === 'fuse_statfs_out') {
        return [{ ours, expression: `offsetof(struct ${struct}, st.${field})`, word: `fuse_kstatfs.${field}` }];
      }
      return [{ ours, expression: `offsetof(struct ${struct}, ${field})`, word: `${struct}.${field}` }];
    });
  });
}

function constantClaims(): Claim[] {
  const named = (table: Readonly<Record<string, number>>, prefix: string, shift = 0): Claim[] =>
    Object.entries(table).map(([name, ours]) => ({
      ours,
      expression: `((unsigned long long)${prefix}${name} >> ${shift})`,
      word: `${prefix}${name}`,
    }));
  return [
    ...named(abi.OPCODE, 'FUSE_'),
    ...named(abi.FATTR, 'FATTR_'),
    ...named(abi.FOPEN, 'FOPEN_'),
    ...named(abi.INIT_FLAGS, 'FUSE_'),
    ...named(abi.INIT_FLAGS2, 'FUSE_', 32),
    ...named(
      {
        KERNEL_VERSION: abi.FUSE_KERNEL_VERSION,
        MIN_READ_BUFFER: abi.FUSE_MIN_READ_BUFFER,
        WRITE_CACHE: abi.FUSE_WRITE_CACHE,
      },
      'FUSE_',
    ),
  ];
}

/** The text of every structure of the header, by its name. */
function structures(header: string): Map<string, string> {
  return new Map(
    [...header.matchAll(/^struct (\w+) \{([^}]*)\}/gm)].map((match) => [match[1] as string, match[2] as string]),
  );
}

describe.skipIf(missing !== undefined)("what this machine's kernel header says", () => {
  test('offsets, sizes and numbers are the same, but for those newer than the header', () => {
    const header = readFileSync(HEADER, 'utf8');
    const bodies = structures(header);
    const knows = (word: string): boolean => {
      const [struct, field] = word.split('.') as [string, string?];
      return field === undefined
        ? new RegExp(`\\b${word}\\b`).test(header)
        : new RegExp(`\\b${field}\\b`).test(bodies.get(struct) ?? '');
    };
    const all = [...layoutClaims(), ...constantClaims()];
    const claims = all.filter(({ word }) => knows(word));
    const unknown = all.filter(({ word }) => !knows(word)).map(({ word }) => word);
    if (unknown.length > 0) console.warn(`newer than ${HEADER}: ${unknown.join(', ')}`);
    expect(claims.length).toBeGreaterThan(150);

    const directory = scratch();
    const source = join(directory, 'abi.c');
    writeFileSync(
      source,
      `#include <stdio.h>\n#include <stddef.h>\n#include <linux/fuse.h>\nint main(void) {\n${claims
        .map(({ expression }) => `  printf("%llu\\n", (unsigned long long)${expression});`)
        .join('\n')}\n  return 0;\n}\n`,
    );
    execFileSync('gcc', ['-o', join(directory, 'abi'), source]);
    const theirs = execFileSync(join(directory, 'abi'), { encoding: 'utf8' }).trim().split('\n').map(Number);
    expect(claims.map(({ word, ours }) => `${word} ${ours >>> 0}`)).toEqual(
      claims.map(({ word }, index) => `${word} ${theirs[index]}`),
    );
  });
});

test('the oldest version that is served has every structure as it is here', () => {
  // 7.31 is Linux 5.4; FUSE_COMPAT_* of fuse.h end at 7.23.
  expect([abi.FUSE_OLDEST_MINOR_VERSION, abi.FUSE_KERNEL_MINOR_VERSION]).toEqual([31, 45]);
});
