/**
 * The user namespace that this process is in (user_namespaces(7)). Any thread.
 */
import { existsSync, readFileSync } from 'node:fs';

const UID_MAP = '/proc/self/uid_map';

export interface UserNamespace {
  /** Whether it is the first one: the only one that maps all users to themselves. */
  readonly isInitial: boolean;
  /** Number outside of the first user that it maps. */
  readonly outside: string | undefined;
}

export function userNamespace(): UserNamespace {
  // Without it the kernel has no such namespaces.
  if (!existsSync(UID_MAP)) return { isInitial: true, outside: undefined };
  const [inside, outside, count] = readFileSync(UID_MAP, 'latin1').trim().split(/\s+/);
  return { isInitial: inside === '0' && outside === '0' && count === '4294967295', outside };
}
