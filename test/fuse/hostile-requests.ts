/**
 * Requests that no kernel would send, for the fuzz test: made up field by field, noise, and real ones with something
 * wrong. No byte of a body is 0x80 or above, so that a sentinel is known when it is seen.
 */
import { CONTROL_NODE, STATUS_NODE } from '../../src/fs/control-directory.ts';
import { OPCODE } from '../../src/fuse/abi.ts';
import type { Random } from '../overlay/random.ts';
import { body, request } from './requests.ts';

export const MAX_TRANSFER = 16_384;

/** Bytes below 0x80, so that no sentinel is among them. */
export function quietBytes(random: Random, length: number): Buffer {
  const bytes = Buffer.alloc(length);
  for (let at = 0; at < length; at++) bytes[at] = random.below(0x80);
  return bytes;
}

/** Small, near a limit, or anything. */
function someOffset(random: Random): bigint {
  switch (random.below(8)) {
    case 0:
      return BigInt.asUintN(64, -BigInt(random.below(10_000)));
    case 1:
      return BigInt.asUintN(64, 2n ** BigInt(random.below(64)) - BigInt(random.below(3)));
    case 2:
      return (BigInt(random.below(2 ** 31)) << 32n) | BigInt(random.below(2 ** 31));
    default:
      return BigInt(random.below(100_000));
  }
}

function someSize(random: Random): number {
  switch (random.below(6)) {
    case 0:
      return 0xffffffff - random.below(3);
    case 1:
      return MAX_TRANSFER - 1 + random.below(3);
    default:
      return random.below(6000);
  }
}

/** Those that are there, those that come and go, and those that cannot be. */
const NAMES = ['disk.raw', 'disk.raw', 'other.raw', 'a.img', 'dir', 'x', '.cowfs', 'status.json', '2', '.', '..', ''];

function someName(random: Random): string {
  return random.below(12) === 0
    ? `${'n'.repeat(random.below(300))}.raw`
    : (NAMES[random.below(NAMES.length)] as string);
}

/** Nodes that are there, and some that are not. */
function someNode(random: Random): bigint {
  return BigInt([1, 1, 2, 2, 2, 2, 2, 3, 3, 4, 5, 0, CONTROL_NODE, STATUS_NODE][random.below(14)] as number);
}

/** Mostly what a kernel would have counted. */
function someCount(random: Random): bigint {
  return random.below(8) === 0 ? someOffset(random) : BigInt(1 + random.below(3));
}

/** Half of what comes is made to get far into a handler; the other half is noise. */
function someBody(random: Random, opcode: number): Buffer {
  if (random.below(2) === 0) return quietBytes(random, random.below(random.below(2) === 0 ? 100 : 600));
  const data = quietBytes(random, random.below(5000));
  const size = random.below(3) === 0 ? someSize(random) : data.length;
  let bytes: Buffer;
  switch (opcode) {
    case OPCODE.LOOKUP:
    case OPCODE.UNLINK:
    case OPCODE.RMDIR:
      bytes = random.below(8) === 0 ? Buffer.from(someName(random)) : body(someName(random));
      break;
    case OPCODE.CREATE:
      // O_TRUNC now and then.
      bytes = body(random.below(4) === 0 ? 0o1002 : random.below(4), random.below(0o1000), 0, 0, someName(random));
      break;
    case OPCODE.MKNOD:
      bytes = body(random.below(4) === 0 ? random.below(2 ** 16) : 0o100644, 0, 0, 0, someName(random));
      break;
    case OPCODE.MKDIR:
      bytes = body(0o755, 0, someName(random));
      break;
    case OPCODE.RENAME:
      bytes = body(someNode(random), someName(random), someName(random));
      break;
    case OPCODE.RENAME2:
      bytes = body(someNode(random), random.below(5), 0, someName(random), someName(random));
      break;
    case OPCODE.FORGET:
      bytes = body(someCount(random));
      break;
    case OPCODE.BATCH_FORGET: {
      const pairs = Array.from({ length: random.below(6) }, () => [someNode(random), someCount(random)]).flat();
      bytes = body(random.below(4) === 0 ? someSize(random) : pairs.length / 2, 0, ...pairs);
      break;
    }
    case OPCODE.SETATTR:
      bytes = body(random.below(2048), 0, 0n, someOffset(random), quietBytes(random, 64));
      break;
    case OPCODE.READ:
    case OPCODE.READDIR:
      bytes = body(0n, someOffset(random), someSize(random), 0, 0n, 0, 0);
      break;
    case OPCODE.WRITE:
      bytes = body(0n, someOffset(random), size, random.below(8), 0n, 0, 0, data);
      break;
    case OPCODE.FALLOCATE:
      bytes = body(0n, someOffset(random), someOffset(random), random.below(64), 0);
      break;
    case OPCODE.LSEEK:
      bytes = body(0n, someOffset(random), random.below(7), 0);
      break;
    default:
      bytes = quietBytes(random, random.below(120));
  }
  // Cut short now and then.
  return random.below(6) === 0 ? bytes.subarray(0, random.below(bytes.length + 1)) : bytes;
}

const KNOWN = [...new Set(Object.values(OPCODE))];

function freshRequest(random: Random): Buffer {
  const opcode = random.below(4) === 0 ? random.below(256) : (KNOWN[random.below(KNOWN.length)] as number);
  const nodeid = random.below(4) === 0 ? someOffset(random) : someNode(random);
  const unique = BigInt(random.below(2 ** 31)) * 2n ** BigInt(random.below(34));
  const bytes = request(opcode, someBody(random, opcode), { nodeid, unique });
  if (random.below(40) === 0) bytes.writeUInt32LE(someSize(random), 0);
  return bytes;
}

const ROOT = 1n;
const DISK = 2n;
const CONTROL = BigInt(CONTROL_NODE);
const STATUS = BigInt(STATUS_NODE);

/** What a kernel sends, one of each kind. */
const REAL: readonly Buffer[] = [
  request(OPCODE.LOOKUP, body('disk.raw'), { nodeid: ROOT }),
  request(OPCODE.GETATTR, body(0, 0, 0n), { nodeid: DISK }),
  // FATTR_SIZE and FATTR_MTIME.
  request(OPCODE.SETATTR, body(0x28, 0, 0n, 60_000n, 0n, 0n, 5n, 0n, 0, 7, 0, 0o600, 0, 0, 0, 0), { nodeid: DISK }),
  request(OPCODE.OPEN, body(2, 0), { nodeid: DISK }),
  request(OPCODE.READ, body(0n, 4090n, 8192, 0, 0n, 0, 0), { nodeid: DISK }),
  request(OPCODE.WRITE, body(0n, 5000n, 5000, 0, 0n, 0, 0, Buffer.alloc(5000, 0x33)), { nodeid: DISK }),
  request(OPCODE.WRITE, body(0n, 8192n, 4096, 1, 0n, 0, 0, Buffer.alloc(4096, 0x44)), { nodeid: DISK }),
  request(OPCODE.FALLOCATE, body(0n, 4096n, 20_000n, 3, 0), { nodeid: DISK }),
  request(OPCODE.FALLOCATE, body(0n, 100n, 9000n, 0x10, 0), { nodeid: DISK }),
  request(OPCODE.LSEEK, body(0n, 100n, 3, 0), { nodeid: DISK }),
  request(OPCODE.RELEASE, body(0n, 2, 0, 0n), { nodeid: DISK }),
  request(OPCODE.FSYNC, body(0n, 0, 0), { nodeid: DISK }),
  request(OPCODE.STATFS, body(), { nodeid: ROOT }),
  request(OPCODE.OPENDIR, body(0, 0), { nodeid: ROOT }),
  request(OPCODE.READDIR, body(0n, 1n, 4096, 0, 0n, 0, 0), { nodeid: ROOT }),
  request(OPCODE.RELEASEDIR, body(0n, 0, 0, 0n), { nodeid: ROOT }),
  request(OPCODE.FORGET, body(1n), { nodeid: DISK }),
  request(OPCODE.INTERRUPT, body(4n), { nodeid: 0n }),
  request(OPCODE.CREATE, body(2, 0o644, 0, 0, 'other.raw'), { nodeid: ROOT }),
  request(OPCODE.CREATE, body(0o1102, 0o644, 0, 0, 'disk.raw'), { nodeid: ROOT }),
  request(OPCODE.MKNOD, body(0o100600, 0, 0, 0, 'disk.raw'), { nodeid: ROOT }),
  request(OPCODE.MKDIR, body(0o755, 0, 'dir'), { nodeid: ROOT }),
  request(OPCODE.UNLINK, body('other.raw'), { nodeid: ROOT }),
  request(OPCODE.UNLINK, body('disk.raw'), { nodeid: ROOT }),
  request(OPCODE.RMDIR, body('dir'), { nodeid: ROOT }),
  request(OPCODE.RENAME, body(ROOT, 'other.raw', 'disk.raw'), { nodeid: ROOT }),
  request(OPCODE.RENAME2, body(ROOT, 2, 0, 'other.raw', 'disk.raw'), { nodeid: ROOT }),
  request(OPCODE.BATCH_FORGET, body(2, 0, DISK, 1n, 3n, 2n), { nodeid: 0n }),
  request(OPCODE.LOOKUP, body('.cowfs'), { nodeid: ROOT }),
  request(OPCODE.LOOKUP, body('2'), { nodeid: CONTROL }),
  request(OPCODE.OPEN, body(0, 0), { nodeid: STATUS }),
  request(OPCODE.READ, body(1n, 0n, 8192, 0, 0n, 0, 0), { nodeid: STATUS }),
  request(OPCODE.RELEASE, body(1n, 0, 0, 0n), { nodeid: STATUS }),
  request(OPCODE.READDIR, body(0n, 1n, 4096, 0, 0n, 0, 0), { nodeid: CONTROL }),
];

/** Where the header ends and the body begins, whose bytes stay below 0x80. */
const HEADER_BYTES = 40;

/** A real one with one to four things wrong: bits, bytes at a limit, a tail cut off, added or another one's. */
function mutatedRequest(random: Random): Buffer {
  let bytes = Buffer.from(REAL[random.below(REAL.length)] as Buffer);
  for (let count = 1 + random.below(4); count > 0; count--) {
    const at = random.below(bytes.length);
    const most = at < HEADER_BYTES ? 0xff : 0x7f;
    switch (random.below(6)) {
      case 0:
        bytes[at] = ((bytes[at] as number) ^ (1 << random.below(8))) & most;
        break;
      case 1:
        bytes[at] = random.below(2) === 0 ? 0 : most;
        break;
      case 2:
        bytes[at] = random.below(most + 1);
        break;
      case 3:
        bytes = bytes.subarray(0, Math.max(1, random.below(bytes.length + 1)));
        break;
      case 4:
        bytes = Buffer.concat([bytes, quietBytes(random, random.below(200))]);
        break;
      default: {
        const other = REAL[random.below(REAL.length)] as Buffer;
        const cut = HEADER_BYTES + random.below(Math.max(1, bytes.length - HEADER_BYTES));
        bytes = Buffer.concat([bytes.subarray(0, cut), other.subarray(Math.min(cut, other.length))]);
      }
    }
  }
  // Most of them whole all the same: a wrong length goes no further.
  if (bytes.length >= 4 && random.below(8) !== 0) bytes.writeUInt32LE(bytes.length, 0);
  return bytes;
}

export function someRequest(random: Random): Buffer {
  return random.below(2) === 0 ? freshRequest(random) : mutatedRequest(random);
}
