import { expect, test } from 'vitest';
import { loadTransport } from '../../src/transport/load.ts';
import { CACHE_MODES, escapeOption, TRANSPORT_NAMES } from '../../src/transport/transport.ts';
import { helperMessage } from '../../src/transport/unmount.ts';

test.each([
  ['/images/base.img', '/images/base.img'],
  ['a,b', 'a\\,b'],
  ['a\\b', 'a\\\\b'],
  ['\\,', '\\\\\\,'],
  [',,', '\\,\\,'],
  ['', ''],
  ['größer = "x y"', 'größer = "x y"'],
])('%j as the value of an option is %j', (value, escaped) => {
  expect(escapeOption(value)).toBe(escaped);
});

test('what libfuse makes of an escaped option is the value', () => {
  for (const value of ['a,b', 'a\\b', '\\,\\', ',', 'x,allow_other', '\\\\,']) {
    // Its lib/fuse_opt.c, process_real_option_group: a backslash stands for what follows it, a comma ends the option.
    const parts = [''];
    const text = `${escapeOption(value)},ro`;
    for (let at = 0; at < text.length; at++) {
      if (text[at] === ',') parts.push('');
      else parts.push(`${parts.pop()}${text[at] === '\\' ? text[++at] : text[at]}`);
    }
    expect(parts).toEqual([value, 'ro']);
  }
});

test('each name has a transport and a way to cache', async () => {
  for (const name of TRANSPORT_NAMES) {
    expect(await loadTransport(name)).toMatchObject({ mount: expect.any(Function) });
    expect(CACHE_MODES[name]).toContain('writethrough');
  }
});

test.each([
  ['fusermount3: entry for /mnt not found in /etc/mtab\n', 'entry for /mnt not found in /etc/mtab'],
  ['fusermount: failed to unmount /mnt: Device or resource busy', 'failed to unmount /mnt: Device or resource busy'],
  ['a warning\nfusermount3: the reason\n', 'the reason'],
  ['', 'no reason given'],
  ['\n', 'no reason given'],
])('of what the helper says, %j, the reason is %j', (stderr, reason) => {
  expect(helperMessage(stderr)).toBe(reason);
});
