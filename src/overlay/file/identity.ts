/**
 * Whether the base at hand is the one that an overlay was made for. Main thread, when an overlay is opened.
 */
import { fstatSync } from 'node:fs';
import { Base } from '../../base/base.ts';
import { fingerprintOf } from '../../base/fingerprint.ts';
import type { OpenedBase } from '../../base/open.ts';
import { CowfsError } from '../../lib/error.ts';
import { formatTime } from '../../lib/units.ts';
import type { BaseIdentity } from './layout.ts';

/** @throws CowfsError of kind `failed` when the base cannot be read */
export function identityOf({ path, kind, descriptor }: OpenedBase): BaseIdentity {
  const { mtimeNs, dev, ino, birthtimeNs: birthNs } = fstatSync(descriptor.fd, { bigint: true });
  const fingerprint = fingerprintOf(new Base(descriptor), path);
  return { path, kind, sizeBytes: descriptor.sizeBytes, mtimeNs, dev, ino, birthNs, fingerprint };
}

/** What is different, in words; undefined if it is the same base, wherever it lies now. */
export function identityChange(then: BaseIdentity, now: BaseIdentity): string | undefined {
  if (now.sizeBytes !== then.sizeBytes) return `its size was ${then.sizeBytes} and is ${now.sizeBytes}`;
  if (Buffer.compare(now.fingerprint, then.fingerprint) !== 0) return 'its content is another';
  // The time of a device's node says nothing.
  if (now.kind === 'block device' || then.kind === 'block device' || now.mtimeNs === then.mtimeNs) return undefined;
  const [before, after] = [then, now].map(({ mtimeNs }) => formatTime(mtimeNs));
  return `it was last written to at ${after}, not at ${before}, though its size and samples of its content are the same`;
}

/**
 * @returns a warning, with `force`, when the base is another
 * @throws CowfsError of kind `refused`, without it
 */
export function checkIdentity(
  overlay: string,
  then: BaseIdentity,
  now: BaseIdentity,
  force: boolean,
): string | undefined {
  const change = identityChange(then, now);
  if (change === undefined) return undefined;
  const found = `${now.path} is not the base of overlay ${overlay} any more: ${change}`;
  if (force) return `${found}; going on because of --force`;
  throw new CowfsError('refused', `${found}; give the right base, or insist with --force if you know that it fits`);
}
