/**
 * Machines that have no fuse-native, or one that does not work: cowfs installs and works all the same, and who asks for
 * that transport is told what to do. Installed by npm in a place of its own.
 */
import { cpSync, existsSync, mkdirSync, readFileSync, renameSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { beforeEach, expect, onTestFinished, type TestContext, test } from 'vitest';
import {
  makeBase,
  makeMountpoint,
  mountsBelow,
  must,
  PROJECT,
  type Result,
  type RunOptions,
  run,
  scratch,
} from '../harness.ts';
import { FUSE_NATIVE, needsFuseNative } from './fuse-native-support.ts';
import { needs, skipUnless } from './machine-support.ts';
import { expectNothingLeft, expectRefusal } from './nothing-left-support.ts';

beforeEach((context) => {
  needs(context, 'npm');
});

interface Installation {
  readonly directory: string;
  /** The package that npm has put beside the others, or has not. */
  readonly fuseNative: string;
  readonly cowfs: (...args: readonly string[]) => Result;
}

/** What a user installs: the command and what it needs to run, fetched by `npm ci`. */
function install(context: TestContext, args: readonly string[], options: RunOptions = {}): Installation {
  const directory = makeMountpoint(scratch(), 'installed');
  for (const name of ['package-lock.json', 'bin', 'dist']) {
    cpSync(join(PROJECT, name), join(directory, name), { recursive: true });
  }
  const manifest = JSON.parse(readFileSync(join(PROJECT, 'package.json'), 'utf8')) as {
    scripts: Record<string, string>;
    allowScripts: Record<string, boolean>;
  };
  // Built already; and the package may run its own script, as under an npm that asks nobody.
  delete manifest.scripts['prepare'];
  manifest.allowScripts['fuse-native'] = true;
  writeFileSync(join(directory, 'package.json'), JSON.stringify(manifest));
  const quiet = ['--omit=dev', '--no-audit', '--no-fund', '--prefer-offline'];
  const { status, stderr } = run('npm', ['ci', ...quiet, ...args], { ...options, cwd: directory });
  skipUnless(context, !/ENOTFOUND|EAI_AGAIN|ETIMEDOUT|ECONNREFUSED/.test(stderr), 'npm cannot reach its registry');
  expect({ status, stderr: status === 0 ? '' : stderr }).toEqual({ status: 0, stderr: '' });
  const command = join(directory, 'bin/cowfs');
  return {
    directory,
    fuseNative: join(directory, 'node_modules/fuse-native'),
    cowfs: (...line) => run(command, line),
  };
}

/** A base and a place to mount on. */
function place(): { base: string; mountpoint: string } {
  const directory = scratch();
  return { base: makeBase(directory, 100_001), mountpoint: makeMountpoint(directory) };
}

async function expectToWork({ cowfs }: Installation, ...options: readonly string[]): Promise<void> {
  const { base, mountpoint } = place();
  const disk = `${mountpoint}/disk.raw`;
  onTestFinished(() => {
    if (mountsBelow(mountpoint).length > 0) cowfs('unmount', '--force', mountpoint);
  });
  expect(cowfs('mount', ...options, base, mountpoint)).toEqual({ status: 0, stdout: `${disk}\n`, stderr: '' });
  expect(readFileSync(disk).equals(readFileSync(base))).toBe(true);
  writeFileSync(disk, 'written', { flag: 'r+' });
  expect(readFileSync(disk).subarray(0, 7).toString()).toBe('written');
  expect(cowfs('unmount', mountpoint)).toEqual({ status: 0, stdout: '', stderr: '' });
  await expectNothingLeft(mountpoint);
}

/** One line that names the reason and both ways out, and nothing mounted. */
async function expectToBeMissed({ cowfs }: Installation, reason: string | RegExp): Promise<void> {
  const { base, mountpoint } = place();
  const says = ['--transport fuse-native', reason, 'npm install fuse-native', '--transport kernel'];
  expectRefusal(cowfs('mount', ...FUSE_NATIVE, base, mountpoint), 4, ...says);
  expectRefusal(cowfs('mount', ...FUSE_NATIVE, '--foreground', base, mountpoint), 4, ...says);
  expectRefusal(cowfs('run', ...FUSE_NATIVE, base, '--', 'true'), 125, ...says);
  expect(mountsBelow(mountpoint)).toEqual([]);
  await expectNothingLeft(mountpoint);
  expect(cowfs('doctor').stdout).toMatch(/^note +fuse-native +.*cannot be used here/m);
}

test('a machine that cannot build the package: npm leaves it out, and cowfs works without', async (context) => {
  // Nothing built for it, and no compilers to build with.
  const directory = scratch();
  const programs = makeMountpoint(directory, 'programs');
  for (const name of ['sh', 'env', 'node', 'npm']) {
    symlinkSync(must('sh', ['-c', `command -v ${name}`]).trim(), join(programs, name));
  }
  const env = { PATH: programs, FUSE_NATIVE_PREBUILD: makeMountpoint(directory, 'nothing-built') };
  const installation = install(context, ['--ignore-scripts=false'], { env });
  expect(existsSync(installation.fuseNative)).toBe(false);
  await expectToBeMissed(installation, 'Cannot find module');
  await expectToWork(installation);
  await expectToWork(installation, '--transport', 'kernel');
});

test('the package is there, and what it loads is not, or is something else', async (context) => {
  needsFuseNative(context);
  const installation = install(context, ['--ignore-scripts']);
  const modules = join(installation.directory, 'node_modules');
  const built = join(installation.fuseNative, 'prebuilds');
  skipUnless(
    context,
    existsSync(join(built, `linux-${process.arch}`)),
    'the package brings nothing built for this machine',
  );
  // It is the one that npm has just put there which works, so what follows is for want of a part.
  await expectToWork(installation, ...FUSE_NATIVE);

  const aside = join(installation.directory, 'aside');
  /** Takes a part away, or puts another file in its place. */
  const without = async (part: string, replacement: string | undefined, reason: string | RegExp): Promise<void> => {
    renameSync(part, aside);
    if (replacement !== undefined) writeFileSync(part, replacement);
    await expectToBeMissed(installation, reason);
    rmSync(part, { force: true });
    renameSync(aside, part);
  };
  await without(built, undefined, /No native build was found for platform=linux/);
  await without(join(built, `linux-${process.arch}`, 'node.napi.node'), 'no addon', /node\.napi\.node/);
  await without(join(modules, 'fuse-shared-library'), undefined, "Cannot find module 'fuse-shared-library'");
  await without(join(modules, 'nanoresource'), undefined, "Cannot find module 'nanoresource'");
  const libfuse = join(modules, 'fuse-shared-library-linux/libfuse/lib/libfuse.so');
  if (!must('sh', ['-c', '/sbin/ldconfig -p || true']).includes('libfuse.so.2 ')) {
    await without(libfuse, undefined, /shared (library|object)/);
    await without(libfuse, 'no library', /shared (library|object)|libfuse/);
  } else console.log('not tried: a broken libfuse in the package, as this machine has one of its own');

  // Whole again; and the kernel transport never looked at any of it.
  await expectToWork(installation, ...FUSE_NATIVE);
  mkdirSync(aside);
  renameSync(installation.fuseNative, join(aside, 'fuse-native'));
  await expectToWork(installation);
});
