/**
 * What readdir(3) sees of a directory of disks. An entry's cookie is its name's age, so that a listing which goes on
 * while names come and go shows every name that stays, once.
 */
import { type Inodes, KIND } from './inodes.ts';
import { DT_DIR, DT_REG, NO_NODE, type NodeId, ROOT_NODE } from './node.ts';
import type { DirectoryEntry } from './ops.ts';

const SELF_COOKIE = 1;
const PARENT_COOKIE = 2;

export function listDirectory(inodes: Inodes, node: NodeId, cookie: number, most: number): DirectoryEntry[] {
  const entries = dotEntries(node, ROOT_NODE, cookie).slice(0, most);
  inodes.locked(() => {
    let child = inodes.childAfter(node, Math.max(0, cookie - PARENT_COOKIE));
    for (; child !== NO_NODE && entries.length < most; child = inodes.next(child)) {
      entries.push({
        name: inodes.name(child),
        node: child,
        type: inodes.kind(child) === KIND.DIRECTORY ? DT_DIR : DT_REG,
        cookie: PARENT_COOKIE + inodes.cookie(child),
      });
    }
  });
  return entries;
}

/** `.` and `..`, unless the listing is past them. */
export function dotEntries(node: NodeId, parent: NodeId, cookie: number): DirectoryEntry[] {
  const entries = [
    { name: '.', node, type: DT_DIR, cookie: SELF_COOKIE },
    { name: '..', node: parent, type: DT_DIR, cookie: PARENT_COOKIE },
  ];
  return entries.filter((entry) => entry.cookie > cookie);
}
