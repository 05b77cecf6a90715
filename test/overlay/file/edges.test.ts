/**
 * Kept disks where something ends: the disk within a block, the map, the largest disk; and the slots of the header when
 * one of them is not whole.
 */
import { closeSync, openSync, writeFileSync, writeSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, test, vi } from 'vitest';
import { EFBIG, OK } from '../../../src/lib/errno.ts';
import { CowfsError } from '../../../src/lib/error.ts';
import { HEADER_BYTES, MAP_OFFSET } from '../../../src/overlay/file/layout.ts';
import type * as libc from '../../../src/sys/libc.ts';
import { difference, readDisk } from '../disk-fixture.ts';
import { nonZeroBytes } from '../random.ts';
import { tap } from './file-tap.ts';
import { basePath, fastScratch, type KeptMount, mountKept } from './kept-disk.ts';

vi.mock('node:fs', async (original) => (await import('./file-tap.ts')).tappedFs(await original()));
vi.mock('../../../src/sys/libc.ts', async (original) =>
  (await import('./file-tap.ts')).tappedLibc(await original<typeof libc>()),
);

vi.setConfig({ testTimeout: 60_000 });

const BLOCK = 4096;
const MIB = 2 ** 20;
const TIB = 2 ** 40;
const PIB = 2 ** 50;

interface Place {
  readonly overlay: string;
  readonly content: Buffer;
  /** Mounts it, does something, and ends it cleanly unless told otherwise. */
  use<T>(act: (mount: KeptMount) => T, options?: { readonly sizeBytes?: number; readonly isKilled?: boolean }): T;
}

function usePlace(baseBytes = 5000): Place {
  const directory = fastScratch();
  const content = nonZeroBytes(baseBytes, 1);
  writeFileSync(basePath(directory), content);
  const overlay = join(directory, 'vm.cow');
  return {
    overlay,
    content,
    use: (act, { sizeBytes, isKilled = false } = {}) => {
      const mount = mountKept(overlay, basePath(directory), sizeBytes);
      try {
        const result = act(mount);
        if (!isKilled) expect(mount.sessions.kept.finish()).toBe(OK);
        return result;
      } finally {
        mount.close();
      }
    },
  };
}

function write({ disk }: KeptMount, offset: number, bytes: Buffer): void {
  expect(disk.write(offset, bytes.length, bytes, 0)).toBe(OK);
}

describe('a disk that ends within a block', () => {
  test('what a killed mount wrote past the end stays hidden, also where nothing was synced', () => {
    const { use, content } = usePlace();
    use((mount) => write(mount, 4100, Buffer.from([7])));
    use((mount) => write(mount, 5000, nonZeroBytes(3192, 2)), { isKilled: true });
    use(({ disk }) => {
      expect(disk.sizeBytes).toBe(5000);
      expect(disk.truncate(8192)).toBe(OK);
      const expected = Buffer.concat([content, Buffer.alloc(3192)]);
      expected[4100] = 7;
      expect(difference(readDisk(disk), expected)).toBe(undefined);
    });
  });

  test('cut off there and made larger it opens again', () => {
    const { use, content } = usePlace(4 * BLOCK);
    use((mount) => {
      write(mount, 0, nonZeroBytes(4 * BLOCK, 2));
      expect(mount.disk.truncate(BLOCK + 904)).toBe(OK);
      expect(mount.disk.truncate(10 * BLOCK)).toBe(OK);
    });
    const expected = Buffer.alloc(10 * BLOCK);
    nonZeroBytes(4 * BLOCK, 2).copy(expected, 0, 0, BLOCK + 904);
    use(({ disk }) => expect(difference(readDisk(disk), expected)).toBe(undefined));
    expect(content).toHaveLength(4 * BLOCK);
  });

  test('cut off there by a recovery and made larger it opens again', () => {
    const { use } = usePlace();
    use(
      (mount) => {
        write(mount, 4100, Buffer.from([7]));
        expect(mount.sessions.kept.sync()).toBe(OK);
        write(mount, 5000, nonZeroBytes(2 * BLOCK, 2));
      },
      { isKilled: true },
    );
    use(({ disk }) => expect([disk.sizeBytes, disk.truncate(10 * BLOCK)]).toEqual([5000, OK]));
    use(({ disk }) => {
      expect(disk.sizeBytes).toBe(10 * BLOCK);
      expect(readDisk(disk, 5000, 5 * BLOCK).every((byte) => byte === 0)).toBe(true);
    });
  });
});

describe('a disk as large as the map, or larger', () => {
  /** The map of a small disk has 17477 pages of 60 MiB. */
  const CAPACITY = 17477 * 60 * MIB;

  test('grows to what the map can tell of', () => {
    const { use, content } = usePlace();
    use((mount) => {
      expect(mount.disk.truncate(CAPACITY)).toBe(OK);
      // On tmpfs and XFS; ext4 has files of up to 16 TiB, too.
      write(mount, CAPACITY - 5, Buffer.from('hello'));
    });
    use(({ disk }) => {
      expect(disk.sizeBytes).toBe(CAPACITY);
      expect(readDisk(disk, CAPACITY - 6, 6).toString('latin1')).toBe('\0hello');
      expect(difference(readDisk(disk, 0, 5000), content)).toBe(undefined);
    });
  });

  test.each<[string, (mount: KeptMount) => number]>([
    ['by truncate', ({ disk }) => disk.truncate(2 * TIB)],
    ['by one byte', ({ disk }) => disk.truncate(CAPACITY + 1)],
    ['by a write', ({ disk }) => disk.write(CAPACITY - 1, 2, Buffer.from('ab'), 0)],
    ['by an allocation', ({ disk }) => disk.allocate(CAPACITY, BLOCK, false)],
  ])('past that it does not grow %s, or it is there again', (_, grow) => {
    const { use, content } = usePlace();
    const [errno, sizeBytes] = use((mount) => {
      write(mount, 0, Buffer.from([9]));
      // Both headers.
      const first = grow(mount);
      expect([OK, EFBIG]).toContain(first);
      expect(mount.sessions.kept.sync()).toBe(OK);
      write(mount, BLOCK, Buffer.from([8]));
      expect(mount.sessions.kept.sync()).toBe(OK);
      return [first, mount.disk.sizeBytes] as const;
    });
    use(({ disk }) => {
      expect(disk.sizeBytes).toBe(sizeBytes);
      if (errno !== OK) expect(sizeBytes).toBeLessThanOrEqual(CAPACITY);
      const expected = Buffer.from(content);
      expected[0] = 9;
      expected[BLOCK] = 8;
      expect(difference(readDisk(disk, 0, 5000), expected)).toBe(undefined);
    });
  });

  test('past that a later --size is refused, or it is there again', () => {
    const { use, content } = usePlace();
    use((mount) => write(mount, 0, Buffer.from([9])));
    try {
      use((mount) => write(mount, BLOCK, Buffer.from([9])), { sizeBytes: 2 * TIB });
    } catch (error) {
      expect(error).toBeInstanceOf(CowfsError);
    }
    use(({ disk }) => expect(difference(readDisk(disk, 1, 4000), content.subarray(1, 4001))).toBe(undefined));
  });

  test('the end of the largest disk is not its start', () => {
    const { use, content } = usePlace();
    use(
      (mount) => {
        expect(mount.disk.discard(4 * PIB - BLOCK, BLOCK)).toBe(OK);
        expect(mount.sessions.kept.sync()).toBe(OK);
        write(mount, 0, nonZeroBytes(BLOCK, 2));
      },
      { sizeBytes: 4 * PIB },
    );
    const expected = Buffer.concat([nonZeroBytes(BLOCK, 2), content.subarray(BLOCK)]);
    use(({ disk }) => {
      expect(disk.sizeBytes).toBe(4 * PIB);
      expect(difference(readDisk(disk, 0, 5000), expected)).toBe(undefined);
    });
  });

  test('a trim of a large disk takes no memory when it is opened again', () => {
    const { use } = usePlace();
    const sizeBytes = TIB / 8;
    const before = use(
      ({ disk, sessions }) => {
        expect(disk.discard(0, sizeBytes)).toBe(OK);
        return sessions.memoryBytes;
      },
      { sizeBytes },
    );
    const after = use(({ disk, sessions }) => {
      expect(readDisk(disk, 0, 5000).every((byte) => byte === 0)).toBe(true);
      return sessions.memoryBytes;
    });
    console.log(`map of a disk of ${sizeBytes} bytes, all of it trimmed: ${before} bytes, opened again ${after}`);
    // Two bits a block would be 8 MiB.
    expect(after).toBeLessThan(MIB);
  });
});

describe('headers of which one is not whole', () => {
  /** Slots of the headers that are written, in order. */
  function headerWrites(overlay: string, act: () => void): number[] {
    const slots: number[] = [];
    tap.current = {
      path: overlay,
      fd: -1,
      after: (event) => {
        if (event.kind === 'write' && event.offset < MAP_OFFSET) slots.push(event.offset / HEADER_BYTES);
      },
    };
    try {
      act();
    } finally {
      tap.current = undefined;
    }
    return slots;
  }

  test.each([0, 1])('the next header goes over the one that is not, slot %d', (slot) => {
    for (let syncs = 1; syncs <= 2; syncs++) {
      const { use, overlay } = usePlace();
      use((mount) => {
        for (let sync = 0; sync < syncs; sync++) {
          write(mount, 0, Buffer.from([sync]));
          expect(mount.sessions.kept.sync()).toBe(OK);
        }
      });
      const fd = openSync(overlay, 'r+');
      writeSync(fd, nonZeroBytes(512, 3), 0, 512, slot * HEADER_BYTES + 4096);
      closeSync(fd);
      const slots = headerWrites(overlay, () =>
        use((mount) => {
          expect(readDisk(mount.disk, 0, 1)[0]).toBe(syncs - 1);
          write(mount, BLOCK, Buffer.from([9]));
          expect(mount.sessions.kept.sync()).toBe(OK);
        }),
      );
      // Else a power cut in the middle of it would leave none.
      expect(slots[0], `after ${syncs} syncs`).toBe(slot);
    }
  });
});
