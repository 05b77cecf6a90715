/**
 * What stat(2) says and chmod(2), chown(2) and utimensat(2) set.
 */
import assert from 'node:assert/strict';
import fs from 'node:fs';
import { setTimes, UTIME_OMIT } from '../system-calls.mjs';
import { BASES, otherBytes } from './content.mjs';
import { Model, reading, writeAll, writing } from './file.mjs';

const nanoseconds = (path) => {
  const { atimeNs, mtimeNs } = fs.statSync(path, { bigint: true });
  return [atimeNs, mtimeNs];
};

export const attributes = [
  {
    name: 'it is a regular file with one name',
    base: 'odd',
    run: (disk) => {
      const stat = fs.statSync(disk);
      assert.ok(stat.isFile());
      assert.equal(stat.nlink, 1);
      assert.equal(stat.size, BASES.odd.bytes);
      assert.equal(stat.uid, process.geteuid());
      assert.ok(stat.blocks > 0 && stat.blksize >= 512);
      assert.equal(fs.statSync(disk).ino, stat.ino);
      reading(disk, (fd) => assert.equal(fs.fstatSync(fd).ino, stat.ino));
      assert.ok(fs.statfsSync(disk).bsize > 0);
    },
  },
  {
    name: 'chmod, by path and by handle, and only the permissions',
    base: 'odd',
    run: (disk) => {
      for (const mode of [0o600, 0o640, 0o755, 0o400]) {
        fs.chmodSync(disk, mode);
        assert.equal(fs.statSync(disk).mode, 0o100000 | mode);
      }
      reading(disk, (fd) => fs.fchmodSync(fd, 0o660));
      assert.equal(fs.statSync(disk).mode & 0o7777, 0o660);
      new Model('odd').verify(disk);
    },
  },
  {
    name: 'chown changes what it names and leaves the other',
    base: 'odd',
    needs: ['root'],
    run: (disk) => {
      fs.chownSync(disk, 1234, 5678);
      // chown(2): -1 leaves an id.
      fs.chownSync(disk, 2 ** 32 - 1, 77);
      assert.deepEqual([fs.statSync(disk).uid, fs.statSync(disk).gid], [1234, 77]);
      fs.chownSync(disk, 4321, 2 ** 32 - 1);
      assert.deepEqual([fs.statSync(disk).uid, fs.statSync(disk).gid], [4321, 77]);
    },
  },
  {
    name: 'times are set each to its own, to the millisecond',
    base: 'odd',
    run: (disk) => {
      setTimes(disk, [1_000_000_001, 123_000_000], [1_234_567_890, 987_000_000]);
      assert.deepEqual(nanoseconds(disk), [1_000_000_001_123_000_000n, 1_234_567_890_987_000_000n]);
      setTimes(disk, [5_000_000_000, 0], [4_999_999_999, 1_000_000]);
      assert.deepEqual(nanoseconds(disk), [5_000_000_000_000_000_000n, 4_999_999_999_001_000_000n]);
    },
  },
  {
    name: 'times to the nanosecond, and before 1970',
    base: 'odd',
    needs: ['exact-times'],
    run: (disk) => {
      setTimes(disk, [17, 123_456_789], [1_234_567_890, 1]);
      assert.deepEqual(nanoseconds(disk), [17_123_456_789n, 1_234_567_890_000_000_001n]);
      setTimes(disk, [-5, 0], [-1_000_000, 5]);
      assert.deepEqual(nanoseconds(disk), [-5_000_000_000n, -999_999_999_999_995n]);
    },
  },
  {
    name: 'without exact times: cut to the millisecond, and 1970 for what was before',
    base: 'odd',
    lacks: 'exact-times',
    run: (disk) => {
      setTimes(disk, [17, 123_456_789], [1_234_567_890, 1]);
      assert.deepEqual(nanoseconds(disk), [17_123_000_000n, 1_234_567_890_000_000_000n]);
      setTimes(disk, [-5, 0], [-1_000_000, 5]);
      assert.deepEqual(nanoseconds(disk), [0n, 0n]);
    },
  },
  {
    name: 'without one time alone: both stay',
    base: 'odd',
    lacks: 'one-time',
    run: (disk) => {
      setTimes(disk, [100, 0], [200, 0]);
      setTimes(disk, UTIME_OMIT, [300, 0]);
      setTimes(disk, [400, 0], UTIME_OMIT);
      assert.deepEqual(nanoseconds(disk), [100_000_000_000n, 200_000_000_000n]);
    },
  },
  {
    name: 'one time alone',
    base: 'odd',
    needs: ['one-time'],
    run: (disk) => {
      setTimes(disk, [100, 0], [200, 0]);
      setTimes(disk, UTIME_OMIT, [300, 0]);
      setTimes(disk, [400, 0], UTIME_OMIT);
      assert.deepEqual(nanoseconds(disk), [400_000_000_000n, 300_000_000_000n]);
    },
  },
  {
    name: 'a write and a truncate change the modification time',
    base: 'odd',
    run: (disk) => {
      for (const change of [
        (fd) => writeAll(fd, otherBytes(1, 10), 5),
        (fd) => fs.ftruncateSync(fd, 5000),
        (fd) => fs.ftruncateSync(fd, 6000),
      ]) {
        setTimes(disk, [1_000_000_000, 0], [1_000_000_000, 0]);
        writing(disk, (fd) => {
          change(fd);
          fs.fsyncSync(fd);
        });
        assert.ok(fs.statSync(disk).mtimeMs > 1_700_000_000_000, `${change}`);
      }
    },
  },
];
