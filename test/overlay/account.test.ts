import { describe, expect, test } from 'vitest';
import { type Quotas, StoreAccount } from '../../src/overlay/account.ts';
import { LAYER, MOUNT, SESSION } from '../../src/overlay/shared.ts';

const BLOCK = 4096;

interface Records {
  readonly layer: Int32Array;
  readonly session: Int32Array;
  readonly mount: Int32Array;
}

function newRecords(mount = new Int32Array(MOUNT.WORDS)): Records {
  return { layer: new Int32Array(LAYER.WORDS), session: new Int32Array(SESSION.WORDS), mount };
}

function open({ layer, session, mount }: Records, quotas: Partial<Quotas> = {}): StoreAccount {
  return new StoreAccount(layer, session, mount, {
    maxStoreBytes: undefined,
    maxSessionStoreBytes: undefined,
    ...quotas,
  });
}

test('two views of one account, as two workers have them', () => {
  const records = newRecords();
  const quotas = { maxStoreBytes: 10 * BLOCK };
  const [one, other] = [open(records, quotas), open(records, quotas)];
  expect(one.charge(7)).toBe(true);
  expect(other.occupiedBytes).toBe(7 * BLOCK);
  expect([other.charge(4), other.charge(0), other.charge(3), other.charge(0)]).toEqual([false, true, true, true]);
  expect(one.charge(1)).toBe(false);
  one.refund(9);
  expect(other.occupiedBytes).toBe(BLOCK);
});

describe.each(['maxStoreBytes', 'maxSessionStoreBytes'] as const)('a quota, %s', (quota) => {
  test.each([
    { bytes: 0, blocks: 0 },
    { bytes: BLOCK - 1, blocks: 0 },
    { bytes: BLOCK, blocks: 1 },
    { bytes: 3 * BLOCK + 4095, blocks: 3 },
  ])('of $bytes bytes is $blocks blocks', ({ bytes, blocks }) => {
    const account = open(newRecords(), { [quota]: bytes });
    expect([account.charge(blocks + 1), account.charge(blocks)]).toEqual([false, true]);
    expect(account.occupiedBytes).toBe(blocks * BLOCK);
  });

  test('beyond 8 TiB, where a signed counter would turn negative, up to 16 TiB', () => {
    const account = open(newRecords(), { [quota]: undefined });
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
    const account = open(newRecords(), { [quota]: 2 ** 52 });
    expect([account.charge(2 ** 32 - 1), account.charge(1)]).toEqual([true, false]);
  });
});

test('blocks whose content is in the store are counted by the map', () => {
  const records = newRecords();
  records.layer[LAYER.WRITTEN_BLOCKS] = -1;
  expect(open(records).writtenBytes).toBe((2 ** 32 - 1) * BLOCK);
});

describe('a mount with several sessions', () => {
  const quotas = { maxStoreBytes: 10 * BLOCK, maxSessionStoreBytes: 6 * BLOCK };

  test('all of them share its quota, and each keeps within its own', () => {
    const mount = new Int32Array(MOUNT.WORDS);
    const [one, other] = [open(newRecords(mount), quotas), open(newRecords(mount), quotas)];
    expect([one.charge(7), one.charge(6), one.charge(1)]).toEqual([false, true, false]);
    expect([other.charge(5), other.charge(4), other.charge(1)]).toEqual([false, true, false]);
    expect([one.occupiedBytes, other.occupiedBytes]).toEqual([6 * BLOCK, 4 * BLOCK]);
    one.refund(6);
    expect([other.charge(3), other.charge(2)]).toEqual([false, true]);
  });

  test('what a session may not book is not booked for the mount', () => {
    const records = newRecords();
    expect(open(records, quotas).charge(7)).toBe(false);
    expect(records.mount[MOUNT.OCCUPIED_BLOCKS]).toBe(0);
  });

  test('a booking counts for the layer, the session and the mount', () => {
    const records = newRecords();
    const account = open(records);
    account.charge(5);
    account.refund(2);
    expect([
      records.layer[LAYER.OCCUPIED_BLOCKS],
      records.session[SESSION.OCCUPIED_BLOCKS],
      records.mount[MOUNT.OCCUPIED_BLOCKS],
    ]).toEqual([3, 3, 3]);
  });
});
