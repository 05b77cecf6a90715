/**
 * The checks of `cowfs doctor`. Each looks at the machine itself, not at a version number; a check that itself fails
 * says so as its finding. Nothing is left behind: what needs a mount makes and removes its own.
 */
import { spawnSync } from 'node:child_process';
import {
  accessSync,
  closeSync,
  constants,
  copyFileSync,
  ftruncateSync,
  mkdtempSync,
  readFileSync,
  rmdirSync,
  statfsSync,
} from 'node:fs';
import { join, resolve } from 'node:path';
import { runtimeDirectory } from '../daemon/runtime-directory.ts';
import type { Session } from '../fuse/init.ts';
import { reasonOf } from '../lib/error.ts';
import { formatBytes } from '../lib/units.ts';
import { openTempStore, storeDirectory } from '../overlay/temp-store.ts';
import { deviceHint } from '../transport/device.ts';
import { loadFuseNative } from '../transport/fuse-native/addon.ts';
import { mountFuse } from '../transport/kernel/mount.ts';
import { openSession } from '../transport/kernel/pool.ts';
import { unmountFuse } from '../transport/unmount.ts';
import { EXIT_CODES } from './exit.ts';
import { formatTable } from './table.ts';

/** `ok`: there; `note`: does without; `missing`: cannot do without. */
type Finding = 'ok' | 'note' | 'missing';

interface Check {
  readonly check: string;
  readonly finding: Finding;
  /** What was found, and what to do if that is not enough. */
  readonly detail: string;
}

export async function runDoctor(options: { readonly store?: string; readonly json?: boolean }): Promise<void> {
  const isRoot = process.geteuid?.() === 0;
  const store = resolve(storeDirectory(options.store));
  const session = await tryMount();
  const checks: Check[] = [
    checkNode(),
    checkDevice(),
    checkHelper(isRoot),
    ...checkProtocol(session),
    checkFuseNative(),
    checkAllowOther(isRoot),
    checkRuntime(),
    checkStore(store),
    checkReflink(store),
    checkPassthrough(isRoot),
    ...checkLimits(),
    checkQemu(),
  ];
  if (options.json === true) process.stdout.write(`${JSON.stringify(checks, undefined, 2)}\n`);
  else process.stdout.write(formatTable(checks.map(({ check, finding, detail }) => [finding, check, detail])));
  if (checks.some(({ finding }) => finding === 'missing')) process.exitCode = EXIT_CODES.missing;
}

function checkNode(): Check {
  return {
    check: 'node',
    finding: 'ok',
    detail: `${process.version} on ${process.platform} ${process.arch}`,
  };
}

function checkDevice(): Check {
  const check = '/dev/fuse';
  try {
    accessSync('/dev/fuse', constants.R_OK | constants.W_OK);
    return { check, finding: 'ok', detail: 'can be opened' };
  } catch (error) {
    return {
      check,
      finding: 'missing',
      detail: `${reasonOf(error)}; ${deviceHint(error)}`,
    };
  }
}

function checkHelper(isRoot: boolean): Check {
  const { error, stdout } = spawnSync('fusermount3', ['--version'], {
    encoding: 'utf8',
  });
  if (error === undefined) return { check: 'fusermount3', finding: 'ok', detail: stdout.trim() };
  const detail = isRoot
    ? 'not installed; only needed without root (apt-get install fuse3)'
    : 'not installed; apt-get install fuse3';
  return { check: 'fusermount3', finding: isRoot ? 'note' : 'missing', detail };
}

/** A real mount of nothing, up to the handshake. */
async function tryMount(): Promise<Session | string> {
  let directory: string;
  try {
    directory = mkdtempSync(join(runtimeDirectory(), 'doctor-'));
  } catch (error) {
    return reasonOf(error);
  }
  let mounted = false;
  try {
    const fd = await mountFuse({
      mountpoint: directory,
      source: 'doctor',
      readOnly: true,
      allowOther: false,
    });
    mounted = true;
    try {
      return openSession(fd, { writeback: true, passthrough: false });
    } finally {
      closeSync(fd);
    }
  } catch (error) {
    return reasonOf(error);
  } finally {
    if (mounted) unmountFuse(directory, true);
    rmdirSync(directory);
  }
}

function checkProtocol(session: Session | string): Check[] {
  const check = 'mounting';
  if (typeof session === 'string') return [{ check, finding: 'missing', detail: session }];
  const { protocol, maxTransferBytes, writebackCache, directIoAllowMmap } = session;
  return [
    {
      check,
      finding: 'ok',
      detail: `works; FUSE protocol ${protocol}, requests of ${formatBytes(maxTransferBytes)}`,
    },
    writebackCache
      ? {
          check: 'write-back cache',
          finding: 'ok',
          detail: 'offered by the kernel',
        }
      : {
          check: 'write-back cache',
          finding: 'note',
          detail: 'not offered: --cache writeback writes through',
        },
    directIoAllowMmap
      ? {
          check: 'direct I/O',
          finding: 'ok',
          detail: 'coherent with mappings and cached readers',
        }
      : {
          check: 'direct I/O',
          finding: 'note',
          detail: 'O_DIRECT goes through the page cache (faster from Linux 6.6 on)',
        },
  ];
}

function checkFuseNative(): Check {
  const check = 'fuse-native';
  try {
    loadFuseNative();
    return { check, finding: 'ok', detail: 'can be loaded, for --transport fuse-native' };
  } catch (error) {
    return { check, finding: 'note', detail: reasonOf(error) };
  }
}

function checkAllowOther(isRoot: boolean): Check {
  const check = '--allow-other';
  if (isRoot) return { check, finding: 'ok', detail: 'root may' };
  try {
    if (/^\s*user_allow_other\b/m.test(readFileSync('/etc/fuse.conf', 'utf8'))) {
      return { check, finding: 'ok', detail: 'allowed by /etc/fuse.conf' };
    }
  } catch {
    // No such file means the default, which is "no".
  }
  return {
    check,
    finding: 'note',
    detail: 'not allowed; root can put user_allow_other into /etc/fuse.conf',
  };
}

function checkRuntime(): Check {
  try {
    return {
      check: 'state directory',
      finding: 'ok',
      detail: runtimeDirectory(),
    };
  } catch (error) {
    return {
      check: 'state directory',
      finding: 'missing',
      detail: reasonOf(error),
    };
  }
}

function checkStore(directory: string): Check {
  const check = 'store';
  try {
    closeSync(openTempStore(directory));
    const { bavail, bsize } = statfsSync(directory);
    return {
      check,
      finding: 'ok',
      detail: `${directory}, ${formatBytes(bavail * bsize)} free`,
    };
  } catch (error) {
    return { check, finding: 'missing', detail: reasonOf(error) };
  }
}

/** Clones one unnamed file into another (ioctl_ficlone(2)). */
function checkReflink(directory: string): Check {
  const check = 'reflink';
  let source: number | undefined;
  let target: number | undefined;
  try {
    source = openTempStore(directory);
    target = openTempStore(directory);
    ftruncateSync(source, 4096);
    copyFileSync(`/proc/self/fd/${source}`, `/proc/self/fd/${target}`, constants.COPYFILE_FICLONE_FORCE);
    return {
      check,
      finding: 'ok',
      detail: `the store's file system can clone files`,
    };
  } catch {
    return {
      check,
      finding: 'note',
      detail: `the store's file system cannot clone files (XFS and btrfs can)`,
    };
  } finally {
    if (source !== undefined) closeSync(source);
    if (target !== undefined) closeSync(target);
  }
}

function checkPassthrough(isRoot: boolean): Check {
  const check = 'passthrough';
  const [major = 0, minor = 0] = readFileSync('/proc/sys/kernel/osrelease', 'utf8').split('.').map(Number);
  const kernel = major > 6 || (major === 6 && minor >= 9);
  if (kernel && isRoot) return { check, finding: 'ok', detail: 'Linux 6.9 or newer, and root' };
  return {
    check,
    finding: 'note',
    detail: kernel ? 'needs root' : 'needs Linux 6.9 or newer, and root',
  };
}

function checkLimits(): Check[] {
  const limits = readFileSync('/proc/self/limits', 'utf8');
  const soft = (name: string): string => new RegExp(`^${name}\\s+(\\S+)`, 'm').exec(limits)?.[1] ?? '?';
  const fileSize = soft('Max file size');
  const openFiles = soft('Max open files');
  return [
    fileSize === 'unlimited'
      ? { check: 'file size limit', finding: 'ok', detail: fileSize }
      : {
          check: 'file size limit',
          finding: 'note',
          detail: `${fileSize} bytes: writes beyond it fail; raise it with ulimit -f`,
        },
    {
      check: 'open file limit',
      finding: Number(openFiles) < 256 ? 'note' : 'ok',
      detail: openFiles,
    },
  ];
}

function checkQemu(): Check {
  const { error, stdout } = spawnSync('qemu-system-x86_64', ['--version'], {
    encoding: 'utf8',
  });
  return error === undefined
    ? { check: 'qemu', finding: 'ok', detail: stdout.split('\n')[0] ?? '' }
    : {
        check: 'qemu',
        finding: 'note',
        detail: 'not installed; only needed to boot a guest (apt-get install qemu-system-x86)',
      };
}
