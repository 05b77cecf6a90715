import { expect, test } from 'vitest';
import { slotBytes } from '../../../src/fuse/transfer-server.ts';
import { addressOf } from '../../../src/sys/io-uring.ts';
import { HUGE_PAGE_BYTES } from '../../../src/sys/memory-io.ts';
import { SLOTS } from '../../../src/transport/kernel/hand-over.ts';
import { createSlots, slotsOf } from '../../../src/transport/kernel/slot-memory.ts';

test.for([131_072, 1_048_576])(
  'slots for transfers of %i bytes lie side by side, from a huge page on',
  (transferBytes) => {
    const memory = createSlots(transferBytes);
    const slots = slotsOf(memory);
    expect(slots).toHaveLength(SLOTS);
    const [first] = slots;
    if (first === undefined) throw new Error('no slot');
    expect(addressOf(first) % HUGE_PAGE_BYTES).toBe(0);
    for (const [index, slot] of slots.entries()) {
      expect(slot.byteLength).toBe(slotBytes(transferBytes));
      expect(slot.byteOffset).toBe(first.byteOffset + index * slot.byteLength);
      expect(slot.byteOffset + slot.byteLength).toBeLessThanOrEqual(memory.byteLength);
    }
  },
);

test('every thread finds the same slots', () => {
  const memory = createSlots(131_072);
  slotsOf(memory)[SLOTS - 1]?.fill(7);
  expect(slotsOf(memory)[SLOTS - 1]?.every((byte) => byte === 7)).toBe(true);
  expect(slotsOf(memory)[SLOTS - 2]?.every((byte) => byte === 0)).toBe(true);
});
