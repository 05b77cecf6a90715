import { describe, expect, test } from 'vitest';
import { StoreAccount } from '../../src/overlay/account.ts';
import { CONTROL } from '../../src/overlay/shared.ts';

const BLOCK = 4096;

function newControl(): Int32Array {
  return new Int32Array(new SharedArrayBuffer(CONTROL.BYTES));
}

test('two views of one account, as two workers have them', () => {
  const control = newControl();
  const [one, other] = [new StoreAccount(control, 10 * BLOCK), new StoreAccount(control, 10 * BLOCK)];
  expect(one.charge(7)).toBe(true);
  expect(other.occupiedBytes).toBe(7 * BLOCK);
  expect([other.charge(4), other.charge(0), other.charge(3), other.charge(0)]).toEqual([false, true, true, true]);
  expect(one.charge(1)).toBe(false);
  one.refund(9);
  expect(other.occupiedBytes).toBe(BLOCK);
});

describe('a quota', () => {
  test.each([
    { bytes: 0, blocks: 0 },
    { bytes: BLOCK - 1, blocks: 0 },
    { bytes: BLOCK, blocks: 1 },
    { bytes: 3 * BLOCK + 4095, blocks: 3 },
  ])('of $bytes bytes is $blocks blocks', ({ bytes, blocks }) => {
    const account = new StoreAccount(newControl(), bytes);
    expect([account.charge(blocks + 1), account.charge(blocks)]).toEqual([false, true]);
    expect(account.occupiedBytes).toBe(blocks * BLOCK);
  });

  test('beyond 8 TiB, where a signed counter would turn negative, up to 16 TiB', () => {
    const account = new StoreAccount(newControl(), undefined);
    expect(account.charge(2 ** 31 + 5)).toBe(true);
    expect(account.occupiedBytes).toBe((2 ** 31 + 5) * BLOCK);
    expect(account.charge(2 ** 31 - 5)).toBe(false);
    expect(account.charge(2 ** 31 - 6)).toBe(true);
    expect(account.charge(1)).toBe(false);
    expect(account.occupiedBytes).toBe((2 ** 32 - 1) * BLOCK);
    account.refund(2 ** 32 - 1);
    expect(account.occupiedBytes).toBe(0);
  });

  test('of more than the counters hold is what they hold', () => {
    const account = new StoreAccount(newControl(), 2 ** 52);
    expect([account.charge(2 ** 32 - 1), account.charge(1)]).toEqual([true, false]);
  });
});

test('blocks whose content is in the store are counted by the map', () => {
  const control = newControl();
  control[CONTROL.WRITTEN_BLOCKS] = -1;
  expect(new StoreAccount(control, undefined).writtenBytes).toBe((2 ** 32 - 1) * BLOCK);
});
