import { randomBytes } from 'node:crypto';
import { closeSync, existsSync, openSync, readdirSync, readFileSync, writeFileSync, writeSync } from 'node:fs';
import { basename, join } from 'node:path';
import { expect, test } from 'vitest';
import {
  COWFS,
  cowfs,
  lacks,
  listMounts,
  makeMountpoint,
  must,
  mustCowfs,
  PROJECT,
  scratch,
  sha256,
} from './harness.ts';

/**
 * Every command of the README is run, as it stands there but for the mountpoint and what keeps qemu from opening a
 * window; what the continuous integration runs by itself is compared with its script.
 */

const README = readFileSync(join(PROJECT, 'README.md'), 'utf8');
const BLOCKS = [...README.matchAll(/^```\n(.*?)^```/gms)].map(([, text]) => (text ?? '').trim());
const COMMANDS = BLOCKS.filter((block) => /^(cowfs|npm) /.test(block)).flatMap((block) => block.split('\n'));

const STRATEGY_COMMANDS = [
  'cowfs mount base.img /mnt/vm --store . --store-strategy auto',
  'cowfs status /mnt/vm',
  'cowfs unmount /mnt/vm',
];

const OVERLAY_COMMANDS = [
  'cowfs mount base.img /mnt/vm --overlay vm.cow',
  'cowfs unmount /mnt/vm',
  'cowfs info vm.cow',
  'cowfs check vm.cow',
  'cowfs diff vm.cow',
  'cowfs export vm.cow vm.qcow2',
  'cowfs commit vm.cow',
];

const SESSION_COMMANDS = [
  'cowfs mount golden.img /mnt/vms --empty',
  'touch /mnt/vms/alice.raw /mnt/vms/bob.raw',
  'cowfs snapshot /mnt/vms/alice.raw clean',
  'cowfs fork /mnt/vms/alice.raw /mnt/vms/carol.raw',
  'cowfs rollback /mnt/vms/alice.raw clean',
  'cowfs reset /mnt/vms/bob.raw',
  'rm /mnt/vms/carol.raw',
  'cowfs unmount /mnt/vms',
];

test('the commands are those that the tests below run', () => {
  expect(COMMANDS).toEqual([
    'cowfs mount base.img /mnt/vm',
    'qemu-system-x86_64 -drive file=/mnt/vm/disk.raw,format=raw',
    'cowfs unmount /mnt/vm',
    'npm ci',
    'npm run demo',
    'npm run verify',
    ...STRATEGY_COMMANDS,
    ...OVERLAY_COMMANDS,
    ...SESSION_COMMANDS,
  ]);
});

const missing = lacks('qemu-system-x86_64');
test.skipIf(missing !== undefined)(
  `mount, boot, unmount${missing ? ` (${missing})` : ''}`,
  async () => {
    const directory = scratch();
    const mountpoint = makeMountpoint(directory);
    must('bash', [join(PROJECT, 'test/guest/build-image.sh'), join(directory, 'base.img')], { timeoutMs: 600_000 });
    const before = await sha256(join(directory, 'base.img'));
    // An alias, as the README recommends.
    const prelude = /alias cowfs="[^"]+"/.exec(README)?.[0] ?? '';
    const aliases = must('bash', ['-c', `${prelude.replace('$PWD', PROJECT)}; alias cowfs`]).trim();
    const sh = (command: string): string =>
      must('bash', ['-O', 'expand_aliases', '-c', `${aliases}\n${command.replaceAll('/mnt/vm', mountpoint)}`], {
        cwd: directory,
        timeoutMs: 600_000,
      });
    const [mount = '', qemu = '', unmount = ''] = COMMANDS;
    expect(sh(mount).trim()).toBe(join(mountpoint, 'disk.raw'));
    const console = sh(`${qemu} -cpu max -m 256 -nodefaults -display none -serial stdio -no-reboot`);
    expect(console).toContain('GUEST done');
    sh(unmount);
    expect(listMounts().filter((entry) => entry.mountpoint === mountpoint)).toEqual([]);
    expect(await sha256(join(directory, 'base.img'))).toBe(before);
  },
  600_000,
);

test('many disks over one base, as the README makes them', async () => {
  const directory = scratch();
  const mountpoint = makeMountpoint(directory);
  const base = join(directory, 'golden.img');
  const content = randomBytes(2 ** 20);
  writeFileSync(base, content);
  const [alice, bob, carol] = ['alice', 'bob', 'carol'].map((name) => join(mountpoint, `${name}.raw`)) as [
    string,
    string,
    string,
  ];
  /** What the disks are to be after each command; between the commands two of them are written to. */
  const contents = (): [string, string][] =>
    readdirSync(mountpoint).map((name) => [name, readFileSync(join(mountpoint, name)).toString('latin1', 0, 5)]);
  const start = content.toString('latin1', 0, 5);
  const steps: Record<string, () => void> = {
    touch: () => {
      expect(contents()).toEqual([
        ['alice.raw', start],
        ['bob.raw', start],
      ]);
      overwrite(alice, 'first');
      overwrite(bob, 'bob..');
    },
    snapshot: () => overwrite(alice, 'later'),
    fork: () => overwrite(alice, 'third'),
    rollback: () =>
      expect(contents()).toEqual([
        ['alice.raw', 'first'],
        ['bob.raw', 'bob..'],
        ['carol.raw', 'later'],
      ]),
    reset: () => expect(readFileSync(bob).equals(content)).toBe(true),
    rm: () => expect(existsSync(carol)).toBe(false),
    unmount: () => expect(readdirSync(mountpoint)).toEqual([]),
  };
  for (const command of SESSION_COMMANDS) {
    shell(command.replaceAll('/mnt/vms', mountpoint), directory);
    steps[verbOf(command)]?.();
  }
  expect(readFileSync(base).equals(content)).toBe(true);
});

test('the kernel serves it where it can, as the README has it', () => {
  const directory = scratch();
  const mountpoint = makeMountpoint(directory);
  const base = join(directory, 'base.img');
  const content = randomBytes(2 ** 20);
  writeFileSync(base, content);
  const [mount = '', status = '', unmount = ''] = STRATEGY_COMMANDS.map((command) =>
    command.replaceAll('/mnt/vm', mountpoint),
  );
  const disk = shell(mount, directory).trim();
  overwrite(disk, 'written', 5000);
  expect(readFileSync(disk).toString('latin1', 5000, 5007)).toBe('written');
  // What it is depends on the file system of the scratch directory, test/integration/reflink.test.ts has each.
  expect(shell(status, directory)).toMatch(/^strategy +(sparse|reflink)\b.*\(.+\)$/m);
  shell(unmount, directory);
  expect(readFileSync(base).equals(content)).toBe(true);
});

test('a disk kept, exported and written back, as the README does it', () => {
  const directory = scratch();
  const mountpoint = makeMountpoint(directory);
  const base = join(directory, 'base.img');
  const content = randomBytes(2 ** 20);
  writeFileSync(base, content);
  const written = Buffer.from(content);
  written.write('kept', 5000);
  const outputs: Record<string, string> = {};
  for (const command of OVERLAY_COMMANDS) {
    outputs[verbOf(command)] = shell(command.replaceAll('/mnt/vm', mountpoint), directory);
    if (verbOf(command) === 'mount') overwrite(join(mountpoint, 'disk.raw'), 'kept', 5000);
    if (verbOf(command) === 'export') expect(readFileSync(base).equals(content)).toBe(true);
  }
  expect(outputs['info']).toContain(base);
  expect(outputs['check']).toContain('no damage');
  expect(outputs['diff']).toMatch(/^ +4096 +4096 +other data$/m);
  expect(readFileSync(base).equals(written)).toBe(true);
  expect(readdirSync(directory).sort()).toEqual(['base.img', basename(mountpoint), 'vm.cow', 'vm.qcow2'].sort());
});

/** Runs a command of the README as a user would who has the command at hand. */
function shell(command: string, directory: string): string {
  return must('bash', ['-c', `cowfs() { '${COWFS}' "$@"; }\n${command}`], { cwd: directory });
}

function verbOf(command: string): string {
  return /^(?:cowfs )?([a-z]+)/.exec(command)?.[1] ?? '';
}

function overwrite(path: string, text: string, offset = 0): void {
  const fd = openSync(path, 'r+');
  writeSync(fd, text, offset);
  closeSync(fd);
}

test('npm run demo shows an unchanged base', () => {
  const out = must('npm', ['run', 'demo'], { cwd: PROJECT });
  expect(out).toMatch(/^unchanged$/m);
  const [before, changed, after] = [...out.matchAll(/([0-9a-f]{64})/g)].map(([, sum]) => sum);
  expect(changed).not.toBe(before);
  expect(after).toBe(before);
  if (missing === undefined) expect(out).toContain('hello from the guest, boot 2');
});

test.skipIf(missing !== undefined)(
  `npm run bench measures${missing ? ` (${missing})` : ''}`,
  { timeout: 300_000 },
  () => {
    expect(README).toContain('`npm run bench`');
    const place = scratch();
    const json = join(place, 'result.json');
    const options = ['--rounds', '1', '--seconds', '1', '--cells', 'trim', '--subjects', 'cowfs'];
    const out = must('npm', ['run', 'bench', '--', ...options, '--place', place, '--json', json], {
      cwd: PROJECT,
      timeoutMs: 280_000,
    });
    expect(out).toMatch(/^\| trim 64k \(IOPS\) \| [\d.]+k? ±0% \| [\d.]+k? ±0% \| - \| - \|$/m);
    expect(out).toMatch(/^Guest up: /m);
    expect(JSON.parse(readFileSync(json, 'utf8'))).toMatchObject({ rounds: 1, places: [{ place }] });
  },
);

test('the completion script completes', () => {
  expect(README).toContain('`source <(cowfs completion bash)`');
  const script = `source <(${COWFS} completion bash) && complete -p cowfs`;
  expect(must('bash', ['-c', script])).toContain('cowfs');
  expect(mustCowfs(['complete', '--', 'mount', '--ca'])).toContain('--cache');
});

test('npm ci and npm run verify are what the continuous integration runs', () => {
  const script = readFileSync(join(PROJECT, '.ci/run'), 'utf8');
  expect(script).toMatch(/^npm ci$/m);
  expect(script).toMatch(/^exec npm run verify$/m);
});

test('npm link gives the command', () => {
  const prefix = scratch();
  must('npm', ['link', '--ignore-scripts'], { cwd: PROJECT, env: { npm_config_prefix: prefix } });
  expect(must(join(prefix, 'bin/cowfs'), ['--version'])).toMatch(/^\d+\.\d+\.\d+$/m);
});

test('every verb and option that the README names exists, and its exit codes are true', () => {
  const program = mustCowfs(['--help']);
  const verbs = [...README.matchAll(/`cowfs ([a-z]+)/g)].map(([, verb]) => verb ?? '');
  for (const verb of new Set(verbs)) expect(program).toContain(`  ${verb}`);
  const help = [...program.matchAll(/^ {2}([a-z]+)[ |]/gm)].map(([, verb = '']) => mustCowfs([verb, '--help'])).join();
  for (const [option] of README.matchAll(/(?<=[`(|, ])--[a-z][a-z-]+/g)) {
    // Of docker, and of mv.
    if (option === '--device' || option === '--exchange') continue;
    expect(help).toContain(option);
  }
  expect(cowfs(['mount']).status).toBe(2);
  expect(cowfs(['status', '/nonexistent']).status).toBe(2);
  expect(cowfs(['run', '/nonexistent', '--', 'true']).status).toBe(125);
  expect(cowfs(['run', '--help']).stdout).toContain('126 and 127');
});
