/**
 * A thousand sessions in one mount: made at once, small while idle, all written to in parallel, verified, removed; then
 * nothing is left of them, twice. Prints the figures; times are shown, not judged.
 */
import { closeSync, openSync, readdirSync, readFileSync, unlinkSync } from 'node:fs';
import { expect, test } from 'vitest';
import { scratch, start } from '../harness.ts';
import { finish, freeBytes, needsRoot, tmpfs } from './machine-support.ts';
import { BLOCK, MIB, mountSessions, statusNow, TRANSPORT_MODES, untilOnly, untilStores } from './sessions-support.ts';

const COUNT = 1000;
const WRITERS = 4;
const BLOCKS_EACH = 8;
/** How far the time to make them may be from what is wanted before something is wrong. */
const MAKE_WITHIN_MS = 20_000;
const WANTED_MS = 2000;
const MAX_IDLE_BYTES = 16 * 1024;
const BASE_BYTES = 8 * MIB;
const NAMES = Array.from({ length: COUNT }, (_, index) => `vm-${index}.raw`);

/** Memory of a process that is its own: shared pages in parts (proc(5), smaps_rollup). */
function pss(pid: number): number {
  const [, kib = '0'] = /^Pss:\s+(\d+) kB$/m.exec(readFileSync(`/proc/${pid}/smaps_rollup`, 'utf8')) ?? [];
  return Number(kib) * 1024;
}

/** Writes or verifies every fourth disk: a pattern that tells disk, block and round. Prints how many. */
const WORKER = `
  const fs = require('node:fs');
  const [mountpoint, what, first, round] = process.argv.slice(1);
  const pattern = (disk, block) => {
    const bytes = Buffer.alloc(${BLOCK});
    for (let at = 0; at < ${BLOCK}; at += 16) {
      bytes.writeUInt32LE(disk, at);
      bytes.writeUInt32LE(block, at + 4);
      bytes.writeUInt32LE(Number(round), at + 8);
      bytes.writeUInt32LE(at, at + 12);
    }
    return bytes;
  };
  let done = 0;
  for (let disk = Number(first); disk < ${COUNT}; disk += ${WRITERS}) {
    const fd = fs.openSync(mountpoint + '/vm-' + disk + '.raw', what === 'write' ? 'r+' : 'r');
    for (let count = 0; count < ${BLOCKS_EACH}; count++) {
      const block = (disk * 7 + count * 61) % ${BASE_BYTES / BLOCK};
      const wanted = pattern(disk, block);
      if (what === 'write') {
        fs.writeSync(fd, wanted, 0, ${BLOCK}, block * ${BLOCK});
        continue;
      }
      const seen = Buffer.alloc(${BLOCK});
      fs.readSync(fd, seen, 0, ${BLOCK}, block * ${BLOCK});
      if (!seen.equals(wanted)) throw new Error('disk ' + disk + ' block ' + block);
    }
    fs.closeSync(fd);
    done += 1;
  }
  console.log(done);
`;

async function inParallel(mountpoint: string, what: 'write' | 'verify', round: number): Promise<void> {
  const workers = Array.from({ length: WRITERS }, (_, first) =>
    finish(start(process.execPath, ['-e', WORKER, '--', mountpoint, what, String(first), String(round)])),
  );
  for (const { status, stdout, stderr } of await Promise.all(workers)) {
    expect({ status, stdout, stderr }).toEqual({ status: 0, stdout: `${COUNT / WRITERS}\n`, stderr: '' });
  }
}

/** What the daemon holds when nothing is asked of it: the lowest of some looks, since garbage comes and goes. */
async function settled(pid: number): Promise<number> {
  let lowest = pss(pid);
  for (let look = 0; look < 10; look++) {
    await new Promise((wake) => setTimeout(wake, 100));
    lowest = Math.min(lowest, pss(pid));
  }
  return lowest;
}

test.for(TRANSPORT_MODES)(
  '$name: 1000 sessions, made, written to, verified and removed, twice',
  { timeout: 300_000 },
  async (mode, context) => {
    needsRoot(context);
    const store = tmpfs(scratch(), '256M');
    // Threads that start under way, where there are more, are not theirs either.
    const threads = mode.transport === 'kernel' ? ['--threads', '2'] : [];
    const options = ['--empty', '--store', store, ...threads];
    const { mountpoint, pid, at } = mountSessions(mode, context, options, BASE_BYTES);
    const free = freeBytes(store);
    // What the first few cost is not theirs alone: code that is compiled, tables that start.
    for (const name of NAMES.slice(0, 20)) closeSync(openSync(at(name), 'a'));
    for (const name of NAMES.slice(0, 20)) unlinkSync(at(name));
    await untilOnly(mountpoint, [], 0);
    const after: number[] = [];
    const mapBytes: number[] = [];
    for (const round of [1, 2]) {
      const idle = await settled(pid);
      const startMs = performance.now();
      for (const name of NAMES) closeSync(openSync(at(name), 'a'));
      const elapsedMs = performance.now() - startMs;
      expect(elapsedMs).toBeLessThan(MAKE_WITHIN_MS);
      expect(new Set(readdirSync(mountpoint))).toEqual(new Set(NAMES));
      const perSession = ((await settled(pid)) - idle) / COUNT;
      console.log(
        `${mode.name}, round ${round}: ${COUNT} sessions in ${elapsedMs.toFixed(0)} ms ` +
          `(${elapsedMs <= WANTED_MS ? 'within' : 'ABOVE'} ${WANTED_MS}), ${perSession.toFixed(0)} bytes each while idle`,
      );
      expect(perSession).toBeLessThan(MAX_IDLE_BYTES);
      await untilStores(pid, 0);

      await inParallel(mountpoint, 'write', round);
      const written = await statusNow(mountpoint);
      expect(written.store.occupiedBytes).toBe(COUNT * BLOCKS_EACH * BLOCK);
      expect(written.disks).toHaveLength(COUNT);
      for (const disk of written.disks) expect(disk.writtenBytes).toBe(BLOCKS_EACH * BLOCK);
      await untilStores(pid, COUNT);
      await inParallel(mountpoint, 'verify', round);

      for (const name of NAMES) unlinkSync(at(name));
      await untilOnly(mountpoint, [], 0);
      await untilStores(pid, 0);
      expect(freeBytes(store)).toBe(free);
      mapBytes.push((await statusNow(mountpoint)).memory.mapBytes);
      after.push(await settled(pid));
      console.log(
        `${mode.name}, round ${round}: written and removed, ${(written.memory.mapBytes / COUNT).toFixed(0)} bytes of map each, ` +
          `memory ${(idle / MIB).toFixed(1)} MiB before, ${((after.at(-1) ?? 0) / MIB).toFixed(1)} MiB after`,
      );
    }
    const [first = 0, second = 0] = after;
    expect(mapBytes[1]).toBe(mapBytes[0]);
    // Heaps of threads grow as they please; a leak of a kilobyte a session would be more.
    expect(second - first).toBeLessThan(12 * MIB);
  },
);
