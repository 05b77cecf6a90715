/**
 * Writes to a disk in an order that shows whether a copy of it is of one moment: numbers from 1 on, each first into its
 * slot (slots lie far apart), then into A, then into B; what was written last is durable before the next. A block holds its
 * number 1024 times.
 *
 * Usage: node export-writer.mjs DISK SLOTS APART; says `number N` now and then, ends at a line on standard input, with
 * `last N`. Slot i is at (2 + i) * APART, A at 0, B at APART.
 */
import { closeSync, fdatasyncSync, openSync, writeSync } from 'node:fs';

const [, , disk, slotsText, apartText] = process.argv;
const [slots, apart] = [Number(slotsText), Number(apartText)];
const fd = openSync(disk, 'r+');
const block = new Uint32Array(1024);
let stopped = false;
process.stdin.on('data', () => {
  stopped = true;
});

function put(number, offset) {
  block.fill(number);
  writeSync(fd, block, 0, 4096, offset);
  fdatasyncSync(fd);
}

for (let number = 1; ; number++) {
  put(number, (2 + (number % slots)) * apart);
  put(number, 0);
  put(number, apart);
  if (number % 50 === 0) {
    console.log(`number ${number}`);
    // A turn for what comes in.
    await new Promise((done) => setImmediate(done));
  }
  if (stopped && number % 50 === 0) {
    closeSync(fd);
    // A reader that was busy has let the pipe run full: what waits to be said is said before the end.
    process.stdin.destroy();
    console.log(`last ${number}`);
    break;
  }
}
