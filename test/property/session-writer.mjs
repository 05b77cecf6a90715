/**
 * Writes records to a part of a disk without end, as a journal does: a record is made durable before the block that tells
 * of it is written. Says the number of each record that it has told of; ends when its standard input ends.
 *
 *   node session-writer.mjs DISK OFFSET SLOTS cached|direct
 *
 * At OFFSET is the block that tells, behind it SLOTS blocks of records in turn, all words of a block being its number.
 * Knows nothing of cowfs; plain JavaScript, since Node 20 runs no TypeScript.
 */
import fs from 'node:fs';
import { aligned, PAGE } from '../system-calls.mjs';

const [disk, offset, slots, kind] = process.argv.slice(2);
const fd = fs.openSync(disk, fs.constants.O_RDWR | (kind === 'direct' ? fs.constants.O_DIRECT : 0));
const start = Number(offset);
const block = aligned(PAGE);
const words = new Uint32Array(block.buffer, block.byteOffset, PAGE / 4);
let goOn = true;

function write(number, at) {
  words.fill(number);
  fs.writeSync(fd, block, 0, PAGE, at);
}

function next(number) {
  if (!goOn) return fs.closeSync(fd);
  write(number, start + PAGE * (1 + (number % Number(slots))));
  fs.fdatasyncSync(fd);
  write(number, start);
  fs.writeSync(1, `${number}\n`);
  return setImmediate(next, number + 1);
}

process.stdin.resume();
process.stdin.on('end', () => {
  goOn = false;
});
next(1);
